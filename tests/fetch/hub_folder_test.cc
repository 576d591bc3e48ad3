#include "fetch/hub_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <future>

#include "store/base/digest.h"
#include "tests/support/pattern.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

class HubFolderTest : public testing::Test {
 protected:
  void put(const std::string& path, std::string_view words) {
    put(path, to_buffer(as_bytes(words)));
  }
  void put(const std::string& path, const Buffer& bytes) {
    const std::string whole = root_ / path;
    ASSERT_TRUE(make_directories(whole.substr(0, whole.rfind('/'))));
    ASSERT_TRUE(write_file_atomically(whole, bytes));
  }
  std::unique_ptr<HubFolder> open(Millis rescan = Millis(0)) {
    auto folder = HubFolder::open(
        {.directory = root_ / "", .rescan = rescan, .hash_cache_file = cache_ / "hashes"});
    if (!folder) ADD_FAILURE() << folder.error().message;
    return std::move(*folder);
  }
  static Result<HubRevisionPtr> revision(HubFolder& folder, const RepoName& repo,
                                         const std::string& name = "main") {
    std::promise<Result<HubRevisionPtr>> promise;
    folder.get_revision(repo, name,
                        [&](Result<HubRevisionPtr> found) { promise.set_value(found); });
    return promise.get_future().get();
  }
  static std::string paths(const Result<HubRevisionPtr>& revision) {
    if (!revision) return std::string(errc_name(revision.error().code));
    std::string out;
    for (const HubFile& file : (*revision)->files) out += file.entry.path + " ";
    return out;
  }
  static Result<std::string> read(const HubFile& file) {
    const HttpBody body = CAKE_TRY(file.open({0, file.entry.bytes}));
    const FileBody& part = std::get<FileBody>(body);
    Buffer out(part.range.length);
    CAKE_TRY(part.file.read_exactly_at(part.range.offset, out));
    return std::string(as_text(out));
  }

  const TempDir root_, cache_;
  const RepoName repo_{RepoType::model, "org/m"};
};

TEST_F(HubFolderTest, FindsReposOfEveryType) {
  put("org/m/a", "1");
  put("org/n@v1/a", "2");
  put("datasets/o/d/a", "3");
  put("spaces/o/s/a", "4");
  put("legacy/README.md", "5");
  put("org/-bad/a", "6");
  put("stray", "7");
  const auto folder = open();
  const auto ids = [&](RepoType type) {
    std::string out;
    const auto list = folder->list_repos(type);
    EXPECT_TRUE(list);
    for (const HubRepo& repo : *list) out += repo.id + " ";
    return out;
  };
  EXPECT_EQ(ids(RepoType::model), "legacy org/m org/n ");
  EXPECT_EQ(ids(RepoType::dataset), "o/d ");
  EXPECT_EQ(ids(RepoType::space), "o/s ");
  EXPECT_TRUE(folder->has_repo(repo_));
  EXPECT_FALSE(folder->has_repo({RepoType::dataset, "org/m"}));
  EXPECT_FALSE(folder->has_repo({RepoType::model, "org/.."}));
}

TEST_F(HubFolderTest, ListsFilesWithTheirHashes) {
  put("org/m/config.json", "{}");
  put("org/m/sub/model.safetensors", pattern_bytes(1000));
  put("org/m/.git/HEAD", "not served");
  const auto folder = open();
  const auto found = revision(*folder, repo_);
  ASSERT_EQ(paths(found), "config.json sub/model.safetensors ");
  EXPECT_TRUE(is_commit((*found)->commit));
  const TreeEntry& plain = (*found)->files[0].entry;
  EXPECT_EQ(plain.ids.git_oid, file_hash_hex(FileHash::git_blob_sha1, as_bytes("{}")));
  EXPECT_EQ(plain.ids.sha256, "");
  const TreeEntry& weights = (*found)->files[1].entry;
  EXPECT_EQ(weights.ids.sha256, file_hash_hex(FileHash::sha256, pattern_bytes(1000)));
  EXPECT_EQ(*read((*found)->files[1]), as_text(pattern_bytes(1000)));
}

TEST_F(HubFolderTest, ServesOtherRevisions) {
  put("org/m/a", "main");
  put("org/m@v1/a", "one");
  put("org/m@refs%2Fpr%2F7/a", "seven");
  put("org/m@refs%2Ftags%2Ft/a", "tagged");
  const auto folder = open();
  for (const auto& [name, words] : std::map<std::string, std::string>{{"main", "main"},
                                                                      {"refs/heads/main", "main"},
                                                                      {"v1", "one"},
                                                                      {"refs/pr/7", "seven"},
                                                                      {"t", "tagged"}}) {
    const auto found = revision(*folder, repo_, name);
    ASSERT_TRUE(found) << name;
    EXPECT_EQ(*read((*found)->files[0]), words);
  }
  EXPECT_EQ(paths(revision(*folder, repo_, "nope")), "not_found");
  std::promise<Result<std::vector<HubRef>>> refs;
  folder->get_refs(repo_, [&](Result<std::vector<HubRef>> all) { refs.set_value(all); });
  EXPECT_EQ(refs.get_future().get()->size(), 4U);
}

TEST_F(HubFolderTest, MovesToANewCommitWhenFilesChange) {
  put("org/m/a", "one");
  put("org/m/b", "same");
  const auto folder = open();
  const auto before = revision(*folder, repo_);
  put("org/m/a", "two");
  const auto after = revision(*folder, repo_);
  ASSERT_TRUE(before && after);
  EXPECT_NE((*before)->commit, (*after)->commit);
  const auto old = revision(*folder, repo_, (*before)->commit);
  ASSERT_TRUE(old);
  EXPECT_EQ(*read((*old)->files[1]), "same");
  // Its bytes are gone; those of another commit are never given for them.
  const auto changed = read((*old)->files[0]);
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code, Errc::corrupt);
}

TEST_F(HubFolderTest, NamesEqualTreesEqually) {
  put("org/m/a", "one");
  put("org/m@copy/a", "one");
  const auto folder = open();
  EXPECT_EQ((*revision(*folder, repo_))->commit, (*revision(*folder, repo_, "copy"))->commit);
}

TEST_F(HubFolderTest, KnowsItsCommitsAfterARestart) {
  put("org/m/a", "one");
  const std::string commit = (*revision(*open(), repo_))->commit;
  EXPECT_EQ(paths(revision(*open(), repo_, commit)), "a ");
}

TEST_F(HubFolderTest, RemembersHashesOverRestarts) {
  put("org/m/w.bin", pattern_bytes(2 * kMiB));
  const auto first = revision(*open(), repo_);
  ASSERT_TRUE(first);
  // What the file says is believed, as long as the stamp fits: seen by planting another hash.
  const auto text = read_text_file(cache_ / "hashes", kMiB);
  ASSERT_TRUE(text);
  std::string planted = *text;
  planted.replace(planted.size() - 65, 64, std::string(64, 'a'));
  ASSERT_TRUE(write_file_atomically(cache_ / "hashes", as_bytes(planted + "torn 12 ")));
  EXPECT_EQ((*revision(*open(), repo_))->files[0].entry.ids.sha256, std::string(64, 'a'));
  put("org/m/w.bin", pattern_bytes(2 * kMiB));  // the same bytes in a new file
  EXPECT_EQ((*revision(*open(), repo_))->commit, (*first)->commit);
  EXPECT_FALSE(path_exists(root_ / "hashes"));
}

TEST_F(HubFolderTest, FollowsLinksInsideOnly) {
  put("org/m/a", "1");
  put("blobs/x/b", "2");
  const TempDir outside;
  ASSERT_TRUE(write_file_atomically(outside / "secret", as_bytes("3")));
  std::filesystem::create_symlink("../../blobs/x/b", root_ / "org/m/inside");
  std::filesystem::create_symlink(outside / "secret", root_ / "org/m/outside");
  std::filesystem::create_symlink("nowhere", root_ / "org/m/dangling");
  std::filesystem::create_directory_symlink(outside.path(), root_ / "org/m/folder");
  std::filesystem::create_directory_symlink(outside.path(), root_ / "org/n");
  const auto folder = open();
  EXPECT_EQ(paths(revision(*folder, repo_)), "a inside ");
  EXPECT_FALSE(folder->has_repo({RepoType::model, "org/n"}));
}

// Swapping a file for a link after the scan must not open what it leads to.
TEST_F(HubFolderTest, RefusesAFileReplacedByALink) {
  put("org/m/a", "1");
  const TempDir outside;
  ASSERT_TRUE(write_file_atomically(outside / "secret", as_bytes("3")));
  const auto folder = open();
  const auto found = revision(*folder, repo_);
  ASSERT_TRUE(found);
  std::filesystem::remove(root_ / "org/m/a");
  std::filesystem::create_symlink(outside / "secret", root_ / "org/m/a");
  EXPECT_FALSE(read((*found)->files[0]));
}

TEST_F(HubFolderTest, LeavesOutNamesThatAreNoText) {
  put("org/m/a", "1");
  put("org/m/\xff\xfe", "2");
  ASSERT_EQ(::mkfifo((root_ / "org/m/fifo").c_str(), 0600), 0);
  EXPECT_EQ(paths(revision(*open(), repo_)), "a ");
}

TEST_F(HubFolderTest, DoesNotScanAgainAtOnce) {
  put("org/m/a", "1");
  const auto folder = open(Millis(3'600'000));
  EXPECT_EQ(paths(revision(*folder, repo_)), "a ");
  put("org/m/b", "2");
  EXPECT_EQ(paths(revision(*folder, repo_)), "a ");
}

TEST_F(HubFolderTest, WantsADirectory) {
  const auto absent = HubFolder::open({.directory = root_ / "nope"});
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Errc::not_found);
}

}  // namespace
}  // namespace cake
