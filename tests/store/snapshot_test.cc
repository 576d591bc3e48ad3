#include "store/snapshot.h"
#include "tests/support/names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>

namespace cake {
namespace {

TreeEntry file(std::string path, uint64_t bytes = 1) {
  return {std::move(path), bytes, {}};
}

Snapshot snapshot_of(const std::vector<std::string>& paths) {
  std::vector<TreeEntry> entries;
  std::vector<uint64_t> ids;
  for (const std::string& path : paths) {
    ids.push_back(100 + entries.size());
    entries.push_back(file(path, entries.size()));
  }
  return Snapshot(kRepo, kCommit, 7, std::move(entries), std::move(ids));
}

std::vector<std::string> paths_of(const Snapshot& snapshot) {
  std::vector<std::string> paths;
  for (const TreeEntry& entry : snapshot.entries()) paths.push_back(entry.path);
  return paths;
}

std::vector<std::string> children_of(const Snapshot& snapshot, std::string_view directory) {
  const Node& node = snapshot.nodes()[snapshot.find_path(directory).value()];
  std::vector<std::string> names;
  for (uint32_t i = 0; i < node.child_count; i++)
    names.emplace_back(snapshot.nodes()[node.first_child + i].name);
  return names;
}

std::string path_of_node(const Snapshot& snapshot, uint32_t ordinal) {
  const Node& node = snapshot.nodes()[ordinal];
  if (ordinal == 0) return "";
  const std::string parent = path_of_node(snapshot, node.parent);
  return parent.empty() ? std::string(node.name) : cat(parent, '/', node.name);
}

// What every snapshot promises, whatever it was made from.
void expect_sound(const Snapshot& snapshot) {
  const std::vector<Node>& nodes = snapshot.nodes();
  ASSERT_FALSE(nodes.empty());
  EXPECT_TRUE(nodes[0].is_directory);
  EXPECT_EQ(nodes[0].name, "");
  const std::vector<std::string> paths = paths_of(snapshot);
  EXPECT_TRUE(std::is_sorted(paths.begin(), paths.end()));
  size_t files = 0, children = 0;
  for (uint32_t i = 0; i < nodes.size(); i++) {
    const std::string path = path_of_node(snapshot, i);
    ASSERT_EQ(snapshot.find_path(path), i) << path;
    ASSERT_EQ(nodes[i].first_child, nodes[i].is_directory ? children + 1 : 0) << path;
    children += nodes[i].child_count;
    for (uint32_t c = 0; c < nodes[i].child_count; c++) {
      const Node& child = nodes[nodes[i].first_child + c];
      ASSERT_EQ(child.parent, i);
      if (c > 0) {
        ASSERT_LT(nodes[nodes[i].first_child + c - 1].name, child.name);
      }
    }
    if (nodes[i].is_directory) continue;
    files++;
    ASSERT_EQ(snapshot.entries()[nodes[i].entry].path, path);
    ASSERT_EQ(snapshot.find_entry(path), nodes[i].entry);
  }
  EXPECT_EQ(files, snapshot.entries().size());
  EXPECT_EQ(children + 1, nodes.size());
}

TEST(RepoName, IsValidAsAHubWouldHaveIt) {
  for (const std::string good : {"gpt2", "org/name", "a/b", "Org-1/Na.me_2", "a.b", "_a/b_", "git"})
    EXPECT_TRUE(is_valid_repo_id(good)) << good;
  for (const std::string bad :
       {"",         "/",   "a/",     "/a",   "a/b/c",   "a--b", "a..b", "-a",
        "a-",       ".a",  "a.",     "a/.b", "a/b-",    "a b",  "a\nb", "a/b.git",
        "\xc3\xa9", "a@b", "a/b--c", "a\\b", "a/b.git", "..",   "."})
    EXPECT_FALSE(is_valid_repo_id(bad)) << bad;
  EXPECT_TRUE(is_valid_repo_id(std::string(96, 'a')));
  EXPECT_FALSE(is_valid_repo_id(std::string(97, 'a')));
  EXPECT_TRUE(is_valid_repo_id(std::string(47, 'a') + "/" + std::string(48, 'b')));
  EXPECT_FALSE(is_valid_repo_id(std::string(48, 'a') + "/" + std::string(48, 'b')));
  EXPECT_FALSE(is_valid_repo_part("a/b"));
  EXPECT_FALSE(is_valid_repo_id(std::string("a\0b", 3)));
}

TEST(RepoName, KnowsItsTypeWords) {
  EXPECT_EQ(repo_type_plural(RepoType::dataset), "datasets");
  EXPECT_EQ(repo_type_singular(RepoType::model), "model");
  EXPECT_EQ(repo_type_singular(RepoType::space), "space");
}

TEST(Revision, IsValidOrACommit) {
  EXPECT_TRUE(is_commit("0123456789abcdef0123456789abcdef01234567"));
  EXPECT_FALSE(is_commit("0123456789ABCDEF0123456789abcdef01234567"));
  EXPECT_FALSE(is_commit("0123456789abcdef0123456789abcdef0123456"));
  EXPECT_FALSE(is_commit("main"));
  for (const std::string good : {"main", "refs/pr/1", "v1.0", "with space", "\xc3\xa9"})
    EXPECT_TRUE(is_valid_revision(good)) << good;
  for (const std::string& bad :
       {std::string(), std::string("a..b"), std::string("a\nb"), std::string("a\0b", 3),
        std::string("a\x7f"), std::string(256, 'a')})
    EXPECT_FALSE(is_valid_revision(bad)) << bad;
  EXPECT_TRUE(is_valid_revision(std::string(255, 'a')));
}

TEST(RepoPath, IsRelativeAndWithoutTricks) {
  for (const std::string good : {"a", "a/b", "...", ".git", "a b", "a\nb", "\xff", "a/..b/c.."})
    EXPECT_TRUE(is_valid_repo_path(good)) << good;
  for (const std::string& bad :
       {std::string(), std::string("/a"), std::string("a/"), std::string("a//b"), std::string("."),
        std::string("a/./b"), std::string(".."), std::string("a/../b"), std::string("a/.."),
        std::string("a\0b", 3), std::string(4097, 'a')})
    EXPECT_FALSE(is_valid_repo_path(bad)) << bad;
  EXPECT_TRUE(is_valid_repo_path(std::string(4096, 'a')));
}

TEST(ContentKey, PrefersTheHashOfTheBytes) {
  TreeEntry entry = file("d/f");
  const std::string oid(40, 'a'), sha256(64, 'b'), xet(64, 'd');
  const auto key = [&] { return content_key(kRepo, kCommit, entry); };
  const std::string place = "models/org/name@" + kCommit + "/d/f";
  EXPECT_EQ(key().kind, ContentKind::place);
  EXPECT_EQ(key().id, place);
  entry.ids.git_oid = oid;
  EXPECT_EQ(key().kind, ContentKind::git_blob);
  EXPECT_EQ(key().id, oid);
  entry.ids.sha256 = sha256;
  EXPECT_EQ(key().kind, ContentKind::sha256);
  EXPECT_EQ(key().id, sha256);
  entry.ids.sha256 = std::string(64, 'B');
  EXPECT_EQ(key().id, sha256);
  // Masked: the oid is the pointer's, and many pointers may be masked alike.
  entry.ids.sha256 = std::string(64, '*');
  EXPECT_EQ(key().id, place);
  entry.ids = {.git_oid = oid, .xet = xet};
  EXPECT_EQ(key().id, place);
  entry.ids = {.git_oid = "abc"};
  EXPECT_EQ(key().id, place);
}

TEST(Snapshot, IsARootWhenEmpty) {
  const Snapshot snapshot = snapshot_of({});
  expect_sound(snapshot);
  EXPECT_EQ(snapshot.nodes().size(), 1u);
  EXPECT_EQ(snapshot.find_path(""), 0u);
  EXPECT_EQ(snapshot.find_path("a"), std::nullopt);
  EXPECT_EQ(snapshot.find_entry(""), std::nullopt);
}

TEST(Snapshot, SortsChildrenByName) {
  const Snapshot snapshot = snapshot_of({"a/z", "a-b", "a0", "a.b", "b/c/d", "a/y/x", "b/a"});
  expect_sound(snapshot);
  EXPECT_EQ(children_of(snapshot, ""), (std::vector<std::string>{"a", "a-b", "a.b", "a0", "b"}));
  EXPECT_EQ(children_of(snapshot, "a"), (std::vector<std::string>{"y", "z"}));
  EXPECT_EQ(children_of(snapshot, "b/c"), (std::vector<std::string>{"d"}));
  EXPECT_EQ(snapshot.dropped(), 0u);
  EXPECT_EQ(snapshot.find_path("a/z/x"), std::nullopt);
  EXPECT_EQ(snapshot.find_path("a/"), std::nullopt);
  EXPECT_EQ(snapshot.find_path("/a"), std::nullopt);
  EXPECT_EQ(snapshot.find_path("b//a"), std::nullopt);
  EXPECT_EQ(snapshot.find_entry("b/c"), std::nullopt);
}

TEST(Snapshot, KeepsContentIdsWithTheirEntries) {
  const Snapshot snapshot = snapshot_of({"c", "../x", "a", "b", "a"});
  EXPECT_EQ(paths_of(snapshot), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(snapshot.content_id(0), 102u);
  EXPECT_EQ(snapshot.content_id(1), 103u);
  EXPECT_EQ(snapshot.content_id(2), 100u);
  EXPECT_EQ(snapshot.entries()[0].bytes, 2u);  // the first of the two
  EXPECT_EQ(snapshot.dropped(), 2u);
  EXPECT_EQ(snapshot.date(), 7);
  EXPECT_EQ(snapshot.commit(), kCommit);
  EXPECT_EQ(snapshot.repo(), kRepo);
}

TEST(Snapshot, DropsFilesThatAreDirectories) {
  // "a-b" sorts between "a" and "a/b".
  const Snapshot snapshot = snapshot_of({"a", "a-b", "a/b", "a/b/c", "x/y", "x"});
  expect_sound(snapshot);
  EXPECT_EQ(paths_of(snapshot), (std::vector<std::string>{"a-b", "a/b/c", "x/y"}));
  EXPECT_EQ(snapshot.dropped(), 3u);
}

TEST(Snapshot, DropsWhatNoFileCanBe) {
  const Snapshot snapshot(kRepo, kCommit, 7,
                          {{"big", kMaxContentBytes, {}}, {"bigger", kMaxContentBytes + 1, {}}},
                          {1, 2});
  EXPECT_EQ(paths_of(snapshot), (std::vector<std::string>{"big"}));
  EXPECT_EQ(snapshot.content_id(0), 1u);
  EXPECT_EQ(snapshot.dropped(), 1u);
}

TEST(Snapshot, SurvivesAMove) {
  Snapshot first = snapshot_of({"a/b", "c"});
  const Snapshot second = std::move(first);
  expect_sound(second);
  EXPECT_NE(second.find_path("a/b"), std::nullopt);
}

TEST(Snapshot, IsSoundForAnyPaths) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; round++) {
    std::vector<std::string> paths(random() % 60);
    for (std::string& path : paths)
      for (size_t i = random() % 8; i-- > 0;) path += "aab-./0"[random() % 7];
    const Snapshot snapshot = snapshot_of(paths);
    ASSERT_NO_FATAL_FAILURE(expect_sound(snapshot)) << round;
    std::set<std::string> kept;
    for (const std::string& path : paths)
      if (is_valid_repo_path(path)) kept.insert(path);
    std::erase_if(kept, [&](const std::string& path) {
      const auto below = kept.lower_bound(path + "/");
      return below != kept.end() && below->starts_with(path + "/");
    });
    ASSERT_EQ(paths_of(snapshot), std::vector<std::string>(kept.begin(), kept.end()));
    ASSERT_EQ(snapshot.dropped(), paths.size() - kept.size());
  }
}

TEST(Snapshot, BuildsAHundredThousandEntriesSoon) {
  std::vector<std::string> paths;
  for (int i = 0; i < 100'000; i++) paths.push_back(cat("d", i % 100, "/e", i % 1000, "/f", i));
  const auto start = std::chrono::steady_clock::now();
  const Snapshot snapshot = snapshot_of(paths);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(snapshot.entries().size(), 100'000u);
  RecordProperty("milliseconds", static_cast<int>(took.count() * 1000));
  EXPECT_LT(took.count(), 10);  // well below 1 s on an idle machine without sanitizers
}

// One directory with all, and a chain of directories a level each: neither is quadratic.
TEST(Snapshot, BuildsExtremeTreesSoon) {
  std::vector<std::string> paths;
  for (int i = 0; i < 100'000; i++) paths.push_back(cat("one/f", i));
  std::string deep;
  while (deep.size() < 4000) deep += "a/";
  for (int i = 0; i < 200; i++) paths.push_back(cat(deep, i));
  const auto start = std::chrono::steady_clock::now();
  const Snapshot snapshot = snapshot_of(paths);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(snapshot.dropped(), 0u);
  EXPECT_NE(snapshot.find_path(deep + "199"), std::nullopt);
}

std::vector<TreeEntry> varied_entries(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto digits = [&](size_t length) {
    std::string out;
    while (out.size() < length) out += "0123456789abcdef"[random() % 16];
    return out;
  };
  std::vector<TreeEntry> entries;
  for (size_t i = 0; i < count; i++) {
    TreeEntry entry = file(cat("dir", random() % 10, "/file", i), random() >> (random() % 64));
    if (random() % 2) entry.ids.git_oid = digits(40);
    if (random() % 2) entry.ids.sha256 = digits(64);
    if (random() % 4 == 0) entry.ids.sha256 = std::string(64, '*');
    if (random() % 2) entry.ids.xet = digits(random() % 70);
    if (random() % 5 == 0) entry.ids.git_oid = std::string(40, 'A');
    entries.push_back(entry);
  }
  return entries;
}

TEST(SnapshotEntries, RoundTrip) {
  for (const size_t count : {0, 1, 2, 1000}) {
    const std::vector<TreeEntry> entries = varied_entries(count, count);
    const auto decoded = Snapshot::decode_entries(Snapshot::encode_entries(entries));
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, entries);
  }
  std::vector<TreeEntry> odd = {file(""),        file(std::string("a\0b", 3), UINT64_MAX),
                                file("\xff", 0), file(std::string(10'000, 'x')),
                                file("x"),       file("x")};
  EXPECT_EQ(*Snapshot::decode_entries(Snapshot::encode_entries(odd)), odd);
}

TEST(SnapshotEntries, AreCompact) {
  std::vector<TreeEntry> entries;
  for (int i = 1000; i < 2000; i++) {
    entries.push_back(file(cat("some/long/directory/name/model-", i), 5'000'000'000));
    entries.back().ids = {std::string(40, 'a'), std::string(64, 'b'), ""};
  }
  EXPECT_LT(Snapshot::encode_entries(entries).size(), 1000u * (20 + 32 + 12));
}

TEST(SnapshotEntries, RefuseEveryTruncation) {
  const Buffer bytes = Snapshot::encode_entries(varied_entries(20, 5));
  for (size_t given = 0; given < bytes.size(); given++) {
    const auto decoded = Snapshot::decode_entries(ByteSpan(bytes).first(given));
    ASSERT_FALSE(decoded) << given;
    EXPECT_EQ(decoded.error().code, Errc::corrupt);
  }
  Buffer longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(Snapshot::decode_entries(longer));
}

Result<std::vector<TreeEntry>> decode(std::string_view bytes) {
  return Snapshot::decode_entries(as_bytes(bytes));
}

TEST(SnapshotEntries, RefuseHostileBytes) {
  using namespace std::string_view_literals;
  EXPECT_TRUE(decode("\x01\x01\x00\x01x\x05\x00"sv));
  EXPECT_FALSE(decode("\x02\x00"sv));                        // version
  EXPECT_FALSE(decode("\x01\xff\xff\xff\xff\x0f"sv));        // count beyond the bytes
  EXPECT_FALSE(decode("\x01\x01\x01\x01x\x05\x00"sv));       // shares with nothing
  EXPECT_FALSE(decode("\x01\x01\x00\x01x\x05\x40"sv));       // unknown id
  EXPECT_FALSE(decode("\x01\x01\x00\x01x\x05\x03"sv));       // unknown form
  EXPECT_FALSE(decode("\x01\x01\x00\x01x\x05\x02\x7fx"sv));  // text beyond the end
  EXPECT_FALSE(decode("\x01\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x\x05\x00"sv));
  EXPECT_FALSE(decode("\x01\x01\x00\x01x\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00"sv));
  EXPECT_EQ(decode("\x01\x01\x00\x01x\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"sv)->at(0).bytes,
            UINT64_MAX);
}

// A path of 1 MB and 100,000 entries of a few bytes that share it all would decode to 100 GB.
TEST(SnapshotEntries, RefuseAPrefixBomb) {
  const std::string path(1'000'000, 'p');
  std::string bomb("\x01\xa0\x8d\x06", 4);  // 100,000 entries
  bomb += std::string("\x00\xc0\x84\x3d", 4) + path + std::string("\0\0", 2);
  for (int i = 1; i < 100'000; i++) bomb += std::string("\xc0\x84\x3d\x00\x00\x00", 6);
  const auto decoded = decode(bomb);
  ASSERT_FALSE(decoded);
  EXPECT_NE(decoded.error().message.find("too much"), std::string::npos);
}

TEST(SnapshotEntries, EncodeLongSharedPathsSoThatTheyDecode) {
  std::vector<TreeEntry> entries;
  for (int i = 0; i < 3000; i++) entries.push_back(file(std::string(4000, 'p') + cat(i)));
  const Buffer bytes = Snapshot::encode_entries(entries);
  EXPECT_LT(bytes.size(), 1'000'000u);
  const auto decoded = Snapshot::decode_entries(bytes);
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, entries);
}

}  // namespace
}  // namespace cake
