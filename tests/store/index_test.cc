#include "store/index.h"

#include <gtest/gtest.h>

#include <thread>

#include "store/base/file.h"
#include "store/sqlite.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

std::unique_ptr<Index> open_index(const TempDir& dir) {
  return must(Index::open(dir / "index.db"));
}

TreeEntry lfs_entry(const std::string& path, uint64_t bytes, const std::string& seed) {
  TreeEntry entry;
  entry.path = path;
  entry.bytes = bytes;
  entry.ids.sha256 = blake3(as_bytes(seed)).hex();
  entry.ids.git_oid = entry.ids.sha256.substr(0, 40);
  return entry;
}

Digest digest_of(uint64_t number) {
  return blake3(as_bytes(cat("chunk ", number)));
}

Location location_of(uint32_t pack, uint64_t number) {
  return {pack, 4096 * number + 128, 1000, 2000, CodecId::zstd, ~number};
}

PublishedExtent extent_of(RowId content, uint64_t ordinal, uint64_t number, uint32_t pack) {
  return {content, ordinal, digest_of(number), location_of(pack, number), 0};
}

TEST(Index, KeepsRowsAcrossReopening) {
  TempDir dir;
  RowId repo = 0;
  {
    auto index = open_index(dir);
    repo = must(index->get_repo(kSource, kRepo));
    must(index->put_ref(repo, {"main", kCommit, 17}));
  }
  auto index = open_index(dir);
  EXPECT_EQ(must(index->get_repo(kSource, kRepo)), repo);
  const auto ref = must(index->find_ref(repo, "main"));
  ASSERT_TRUE(ref);
  EXPECT_EQ(ref->commit, kCommit);
  EXPECT_EQ(ref->resolved_at, 17);
  EXPECT_FALSE(must(index->find_ref(repo, "v1")));
  EXPECT_EQ(must(index->list_refs(repo)).size(), 1u);
  EXPECT_EQ(must(index->list_sources()), std::vector<std::string>{kSource});
  EXPECT_EQ(must(index->list_repos(kSource)).at(0).name, kRepo);
  EXPECT_FALSE(must(index->find_repo(kSource, {RepoType::dataset, "org/name"})));
}

TEST(Index, RefusesStoreOfNewerProgram) {
  TempDir dir;
  open_index(dir).reset();
  {
    auto db = must(Connection::open(dir / "index.db", Connection::Mode::read_write));
    must(db->execute("UPDATE meta SET value = 999 WHERE key = 'schema_version'"));
  }
  const auto opened = Index::open(dir / "index.db");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::unsupported);
}

TEST(Index, CanBeOpenedByManyAtOnce) {
  TempDir dir;
  std::vector<std::thread> threads;
  std::atomic<int> opened{0};
  for (int i = 0; i < 8; i++)
    threads.emplace_back([&, i] {
      auto index = Index::open(dir / "index.db");
      if (index && (*index)->get_source(cat("source ", i)).ok()) opened++;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(opened, 8);
  EXPECT_EQ(must(open_index(dir)->list_sources()).size(), 8u);
}

TEST(Index, RoundTripsSnapshotOfTenThousandEntries) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  std::vector<TreeEntry> entries;
  for (int i = 0; i < 10'000; i++)
    entries.push_back(lfs_entry(cat("dir", i % 7, "/file-", i), 1000 + i, cat("seed", i)));
  const SteadyTime start = steady_now();
  const auto put = must(index->put_snapshot(repo, kCommit, 1234, entries));
  // Well under a second; the bound leaves a sanitizer build and a busy machine room.
  EXPECT_LT(steady_now() - start, std::chrono::seconds(10));
  RecordProperty("put_snapshot_ms",
                 static_cast<int>((steady_now() - start) / std::chrono::milliseconds(1)));

  const auto found = must(index->find_snapshot(repo, kCommit));
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->entries(), put->entries());
  EXPECT_EQ(found->entries().size(), 10'000u);
  EXPECT_EQ(found->date(), 1234);
  EXPECT_EQ(found->content_id(9'999), put->content_id(9'999));
  const auto rows = must(index->list_snapshots(repo));
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].files, 10'000u);
  EXPECT_EQ(must(index->find_snapshot(repo, std::string(40, 'b'))), nullptr);
}

TEST(Index, GivesEqualFilesOneContent) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  const RowId other = must(index->get_repo(kSource, {RepoType::model, "org/other"}));
  const auto first =
      must(index->put_snapshot(repo, kCommit, 100, {lfs_entry("a.bin", 10, "same")}));
  const auto second =
      must(index->put_snapshot(other, kCommit, 200, {lfs_entry("b.bin", 10, "same")}));
  EXPECT_EQ(first->content_id(0), second->content_id(0));
  const auto content = must(index->find_content(first->content_id(0)));
  ASSERT_TRUE(content);
  EXPECT_EQ(content->mtime, 100);  // the first commit seen with it, for ever
  EXPECT_EQ(content->path, "b.bin");
  EXPECT_EQ(content->repo.id, "org/other");
  EXPECT_EQ(content->source, kSource);
  EXPECT_EQ(content->bytes, 10u);
  EXPECT_FALSE(content->verified);
}

TEST(Index, DoesNotShareContentsAcrossSources) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId here = must(index->get_repo(kSource, kRepo));
  const RowId there = must(index->get_repo("hf:https://other.test", kRepo));
  const auto a = must(index->put_snapshot(here, kCommit, 1, {lfs_entry("a", 10, "same")}));
  const auto b = must(index->put_snapshot(there, kCommit, 1, {lfs_entry("a", 10, "same")}));
  EXPECT_NE(a->content_id(0), b->content_id(0));
}

// A hub that gives a known hash to a file of another length lies about one of them.
TEST(Index, DoesNotGiveFileOfOtherLengthTheSameContent) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  const auto snapshot = must(index->put_snapshot(
      repo, kCommit, 1, {lfs_entry("a", 10, "same"), lfs_entry("b", 11, "same")}));
  EXPECT_NE(snapshot->content_id(0), snapshot->content_id(1));
  EXPECT_EQ(must(index->find_content(snapshot->content_id(1)))->bytes, 11u);
}

TEST(Index, KeepsFirstListingOfCommit) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  must(index->put_snapshot(repo, kCommit, 1, {lfs_entry("a", 10, "a")}));
  const auto again = must(
      index->put_snapshot(repo, kCommit, 2, {lfs_entry("0", 10, "0"), lfs_entry("a", 10, "a")}));
  EXPECT_EQ(again->entries().size(), 1u);
  EXPECT_EQ(again->date(), 1);
}

TEST(Index, NeverReusesRowIds) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  const auto first = must(index->put_snapshot(repo, kCommit, 1, {lfs_entry("a", 1, "a")}));
  const RowId view = must(index->get_view({0, "flat", kSource, kRepo, "org/name", kCommit}));
  index.reset();
  {
    auto db = must(Connection::open(dir / "index.db", Connection::Mode::read_write));
    must(db->execute("DELETE FROM content; DELETE FROM view; DELETE FROM snapshot"));
  }
  index = open_index(dir);
  const auto second = must(index->put_snapshot(repo, kCommit, 1, {lfs_entry("b", 1, "b")}));
  EXPECT_GT(second->content_id(0), first->content_id(0));
  EXPECT_GT(must(index->get_view({0, "flat", kSource, kRepo, "org/name", kCommit})), view);
}

TEST(Index, NumbersViewsByAllTheirParts) {
  TempDir dir;
  auto index = open_index(dir);
  const ViewRow view{0, "flat", kSource, kRepo, "org/name@main", kCommit};
  const RowId id = must(index->get_view(view));
  EXPECT_EQ(must(index->get_view(view)), id);
  ViewRow other = view;
  other.typed = "org/name";
  EXPECT_NE(must(index->get_view(other)), id);
  const auto found = must(index->find_view(id));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->typed, view.typed);
  EXPECT_EQ(found->commit, kCommit);
  EXPECT_FALSE(must(index->find_view(id + 1000)));
}

TEST(Index, RemembersAuthorListing) {
  TempDir dir;
  auto index = open_index(dir);
  EXPECT_FALSE(must(index->find_author(kSource, RepoType::model, "org")));
  must(index->put_author(kSource, RepoType::model, "org", {{"org/a", "org/b"}, 5}));
  must(index->put_author(kSource, RepoType::model, "org", {{"org/a", "org/c"}, 6}));
  const auto listing = must(index->find_author(kSource, RepoType::model, "org"));
  ASSERT_TRUE(listing);
  EXPECT_EQ(listing->ids, (std::vector<std::string>{"org/a", "org/c"}));
  EXPECT_EQ(listing->listed_at, 6);
}

TEST(Index, PublishesAcrossSegments) {
  TempDir dir;
  auto index = open_index(dir);
  const uint32_t pack = must(index->add_pack("1.pack"));
  std::vector<PublishedExtent> extents;
  for (const uint64_t ordinal : {0u, 1023u, 1024u, 5000u})
    extents.push_back(extent_of(7, ordinal, ordinal, pack));
  must(index->publish(extents, pack, 12345));

  const auto digests = must(index->find_digests(7, 0, 6000));
  EXPECT_EQ(digests[0], digest_of(0));
  EXPECT_TRUE(digests[1].is_zero());
  EXPECT_EQ(digests[1023], digest_of(1023));
  EXPECT_EQ(digests[1024], digest_of(1024));
  EXPECT_EQ(digests[5000], digest_of(5000));
  EXPECT_EQ(must(index->find_digests(7, 1024, 1)).at(0), digest_of(1024));
  const std::vector<Digest> wanted = {digest_of(1023), digest_of(9)};
  const auto found = must(index->find_chunks(wanted));
  EXPECT_EQ(found[0], location_of(pack, 1023));
  EXPECT_FALSE(found[1]);
  EXPECT_EQ(must(index->find_pack(pack))->committed_bytes, 12345u);
}

// Two processes fetch different parts of a file: both sets of digests must be there in the end.
TEST(Index, MergesDigestsOfTwoProcesses) {
  TempDir dir;
  auto one = open_index(dir);
  auto two = open_index(dir);
  const uint32_t pack = must(one->add_pack("1.pack"));
  const auto publish = [&](Index& index, uint64_t first) {
    for (uint64_t i = first; i < 200; i += 2) {
      const PublishedExtent extent = extent_of(7, i, i, pack);
      must(index.publish(std::span(&extent, 1), pack, 0));
    }
  };
  std::thread other([&] { publish(*two, 1); });
  publish(*one, 0);
  other.join();
  const auto digests = must(one->find_digests(7, 0, 200));
  for (uint64_t i = 0; i < 200; i++) EXPECT_EQ(digests[i], digest_of(i)) << i;
  EXPECT_EQ(must(one->usage()).logical_bytes, 200u * 2000);
}

TEST(Index, CountsEachChunkOnce) {
  TempDir dir;
  auto index = open_index(dir);
  const uint32_t pack = must(index->add_pack("1.pack"));
  // 1 holds chunks 0 and 1 (0 twice), 2 holds 1 and 2, 3 holds 2.
  const std::vector<PublishedExtent> extents = {
      extent_of(1, 0, 0, pack), {1, 1, digest_of(0), std::nullopt, 2000},
      extent_of(1, 2, 1, pack), {2, 0, digest_of(1), std::nullopt, 0},  // its length is looked up
      extent_of(2, 1, 2, pack), {3, 0, digest_of(2), std::nullopt, 2000},
  };
  must(index->publish(extents, pack, 0));

  const Usage usage = must(index->usage());
  EXPECT_EQ(usage.contents, 3u);
  EXPECT_EQ(usage.logical_bytes, 6u * 2000);
  EXPECT_EQ(usage.chunks, 3u);
  EXPECT_EQ(usage.plain_bytes, 3u * 2000);
  EXPECT_EQ(usage.encoded_bytes, 3u * 1000);
  EXPECT_EQ(must(index->cached(1)).bytes, 3u * 2000);
  EXPECT_EQ(must(index->cached(1)).stored_bytes, 2u * 1000);

  const std::vector<RowId> both = {1, 2};
  const auto set = must(index->set_usage(both));
  EXPECT_EQ(set.logical_bytes, 5u * 2000);
  EXPECT_EQ(set.plain_bytes, 3u * 2000);
  EXPECT_EQ(set.encoded_bytes, 3u * 1000);
  EXPECT_EQ(set.exclusive_encoded_bytes, 2u * 1000);  // chunk 2 is also content 3's
}

TEST(Index, DropsChunkOnlyWhenItStillLiesThere) {
  TempDir dir;
  auto index = open_index(dir);
  const uint32_t pack = must(index->add_pack("1.pack"));
  const PublishedExtent extent = extent_of(1, 0, 0, pack);
  must(index->publish(std::span(&extent, 1), pack, 0));
  must(index->drop_chunk(digest_of(0), location_of(pack, 1)));
  EXPECT_TRUE(must(index->find_chunks(std::span(&extent.digest, 1)))[0]);
  must(index->drop_chunk(digest_of(0), location_of(pack, 0)));
  EXPECT_FALSE(must(index->find_chunks(std::span(&extent.digest, 1)))[0]);
  // The digest stays: it tells a later fetch what must arrive.
  EXPECT_EQ(must(index->find_digests(1, 0, 1))[0], digest_of(0));
}

TEST(Index, ForgetsDigestsThatProvedWrong) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  const auto snapshot =
      must(index->put_snapshot(repo, kCommit, 1, {lfs_entry("a", kMiB + 500, "a")}));
  const RowId content = snapshot->content_id(0);
  must(index->put_recipe(content, {Cutter::uniform, {}}));
  const std::vector<PublishedExtent> extents = {
      {content, 0, digest_of(0), std::nullopt, kMiB},
      {content, 1, digest_of(1), std::nullopt, 500},
  };
  must(index->publish(extents, 0, 0));
  const std::vector<uint64_t> wrong = {1};
  must(index->drop_digests(content, wrong));
  EXPECT_EQ(must(index->find_digests(content, 0, 2)),
            (std::vector<Digest>{digest_of(0), Digest{}}));
  EXPECT_EQ(must(index->usage()).logical_bytes, kMiB);
}

TEST(Index, KeepsFirstRecipe) {
  TempDir dir;
  auto index = open_index(dir);
  EXPECT_FALSE(must(index->find_recipe(3)));
  const Buffer head = random_bytes(1, 1000);
  must(index->put_recipe(3, {Cutter::safetensors, head}));
  must(index->put_recipe(3, {Cutter::uniform, {}}));
  const auto recipe = must(index->find_recipe(3));
  ASSERT_TRUE(recipe);
  EXPECT_EQ(recipe->cutter, Cutter::safetensors);
  EXPECT_EQ(recipe->head, head);
}

TEST(Index, MarksContents) {
  TempDir dir;
  auto index = open_index(dir);
  const RowId repo = must(index->get_repo(kSource, kRepo));
  const RowId id =
      must(index->put_snapshot(repo, kCommit, 1, {lfs_entry("a", 1, "a")}))->content_id(0);
  must(index->set_verification(id, Verification::verified));
  const auto content = must(index->find_content(id));
  EXPECT_TRUE(content->verified);
  EXPECT_FALSE(must(index->find_content(id + 1)));
}

TEST(Index, SealsPacks) {
  TempDir dir;
  auto index = open_index(dir);
  const uint32_t pack = must(index->add_pack("1.pack"));
  EXPECT_EQ(must(index->add_pack("1.pack")), pack);
  EXPECT_FALSE(must(index->find_pack(pack))->sealed);
  must(index->publish({}, pack, 500));
  must(index->seal_pack(pack, 400));
  const auto rows = must(index->list_packs());
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_TRUE(rows[0].sealed);
  EXPECT_EQ(rows[0].committed_bytes, 500u);
  EXPECT_EQ(rows[0].name, "1.pack");
}

}  // namespace
}  // namespace cake
