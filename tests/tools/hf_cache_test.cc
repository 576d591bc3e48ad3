#include "tools/hf_cache.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "store/base/file.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

const std::string kBlob(64, 'b');

class HfCacheTest : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const std::string where = cat(dir_.path(), "/", path);
    must(make_directories(std::filesystem::path(where).parent_path().string()));
    must(write_file_atomically(where, as_bytes(text)));
  }
  void link(const std::string& path, const std::string& target) {
    const std::string where = cat(dir_.path(), "/", path);
    must(make_directories(std::filesystem::path(where).parent_path().string()));
    std::filesystem::create_symlink(target, where);
  }
  std::vector<HfCachedRepo> scan() {
    const auto repos = must(scan_hf_cache(dir_.path()));
    EXPECT_TRUE(repos);
    return repos.value_or(std::vector<HfCachedRepo>());
  }

  TempDir dir_;
  const std::string repo_ = "models--org--name/";
  const std::string snapshot_ = repo_ + "snapshots/" + kCommit + "/";
};

TEST_F(HfCacheTest, FollowsLinksToBlobs) {
  write(repo_ + "blobs/" + kBlob, "weights");
  write(repo_ + "blobs/" + kBlob + ".12345678.incomplete", "half");
  write(repo_ + "refs/main", kCommit);
  write(repo_ + "refs/refs/pr/7", kCommit + "\n");
  link(snapshot_ + "sub/w.bin", "../../../blobs/" + kBlob);
  write(snapshot_ + "plain.txt", "no link");
  const auto repos = scan();
  ASSERT_EQ(repos.size(), 1u);
  EXPECT_EQ(repos[0].repo.id, "org/name");
  EXPECT_EQ(repos[0].skipped, 1u);
  const std::vector<std::pair<std::string, std::string>> refs = {{"main", kCommit},
                                                                 {"refs/pr/7", kCommit}};
  EXPECT_EQ(repos[0].refs, refs);
  ASSERT_EQ(repos[0].revisions.size(), 1u);
  const HfCachedRevision& revision = repos[0].revisions[0];
  EXPECT_EQ(revision.commit, kCommit);
  ASSERT_EQ(revision.files.size(), 2u);
  EXPECT_EQ(revision.files[0].path, "plain.txt");
  EXPECT_EQ(revision.files[0].etag, "");
  EXPECT_EQ(revision.files[1].path, "sub/w.bin");
  EXPECT_EQ(revision.files[1].etag, kBlob);
  EXPECT_EQ(revision.files[1].bytes, 7u);
}

TEST_F(HfCacheTest, LeavesOutWhatLeadsOutOrNowhere) {
  TempDir elsewhere;
  must(write_file_atomically(elsewhere.path() + "/secret", as_bytes("secret")));
  link(snapshot_ + "secret", elsewhere.path() + "/secret");
  link(snapshot_ + "broken", "../../blobs/" + kBlob);
  write(snapshot_ + "good", "x");
  const auto repos = scan();
  EXPECT_EQ(repos[0].skipped, 2u);
  ASSERT_EQ(repos[0].revisions[0].files.size(), 1u);
  EXPECT_EQ(repos[0].revisions[0].files[0].path, "good");
}

TEST_F(HfCacheTest, BlobsMayBeSharedByRepos) {
  write("models--org--other/blobs/" + kBlob, "weights");
  write("models--org--other/snapshots/.keep", "");
  link(snapshot_ + "w.bin", "../../../models--org--other/blobs/" + kBlob);
  const auto repos = scan();
  ASSERT_EQ(repos.size(), 2u);
  EXPECT_EQ(repos[0].revisions[0].files[0].etag, kBlob);
}

TEST_F(HfCacheTest, ReadsTheListOfFiles) {
  write(snapshot_ + "good", "x");
  write(repo_ + "trees/" + kCommit + ".json",
        cat(R"({"format_version":1,"files":{"w.bin":{"size":7,"blob_id":")", kCommit,
            R"(","lfs_sha256":")", kBlob, R"("}}})"));
  const auto repos = scan();
  ASSERT_TRUE(repos[0].revisions[0].tree);
  const TreeEntry& entry = repos[0].revisions[0].tree->front();
  EXPECT_EQ(entry.path, "w.bin");
  EXPECT_EQ(entry.bytes, 7u);
  EXPECT_EQ(entry.ids.sha256, kBlob);
  EXPECT_EQ(entry.ids.git_oid, kCommit);
}

TEST_F(HfCacheTest, RefusesListsThatAreNone) {
  for (const char* text :
       {"", "[]", "{}", R"({"format_version":2,"files":{}})", R"({"format_version":1,"files":[]})",
        R"({"format_version":1,"files":{"a":7}})",
        R"({"format_version":1,"files":{"a":{"size":-1}}})"})
    EXPECT_FALSE(parse_hf_tree(text)) << text;
}

TEST_F(HfCacheTest, OtherFoldersAreNone) {
  write("some/file", "x");
  EXPECT_FALSE(must(scan_hf_cache(dir_.path())));
  EXPECT_FALSE(scan_hf_cache(dir_.path() + "/absent"));
}

}  // namespace
}  // namespace cake
