#include "fs/hf_names.h"
#include "tests/support/names.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace cake {
namespace {

Snapshot snapshot_of(std::vector<TreeEntry> entries) {
  std::vector<uint64_t> ids(entries.size(), 1);
  return Snapshot({RepoType::model, "org/m"}, kCommit, 0, std::move(entries), std::move(ids));
}

TEST(HfNames, FoldersAndReposAreEachOther) {
  for (const RepoName& repo :
       {RepoName{RepoType::model, "org/name"}, RepoName{RepoType::model, "gpt2"},
        RepoName{RepoType::dataset, "a-b/c.d_e"}, RepoName{RepoType::space, "x/y"}}) {
    const std::optional<RepoName> back = parse_hf_folder(hf_folder(repo));
    ASSERT_TRUE(back) << hf_folder(repo);
    EXPECT_EQ(*back, repo);
  }
  EXPECT_EQ(hf_folder({RepoType::dataset, "org/name"}), "datasets--org--name");
}

TEST(HfNames, RefusesWhatIsNoRepo) {
  for (const char* name : {"", "models", "models--", "models--a--b--c", "models----x",
                           "model--a--b", ".locks", "models--a--", "models--.git", "models--a/b--c",
                           "models--a/b", "models--a--..", "CACHEDIR.TAG", "models--a--b.git"})
    EXPECT_FALSE(parse_hf_folder(name)) << name;
}

TEST(HfNames, TakesPlacesApart) {
  using Kind = HfPlace::Kind;
  EXPECT_EQ(parse_hf_place("")->kind, Kind::hub);
  EXPECT_EQ(parse_hf_place("models--o--m")->kind, Kind::repo);
  EXPECT_EQ(parse_hf_place("models--o--m/blobs")->kind, Kind::blobs);
  EXPECT_EQ(parse_hf_place("models--o--m/snapshots")->kind, Kind::snapshots);
  EXPECT_EQ(parse_hf_place("models--o--m/trees")->kind, Kind::trees);
  EXPECT_EQ(parse_hf_place("models--o--m/refs")->rest, "");
  EXPECT_EQ(parse_hf_place("models--o--m/refs/refs/pr")->rest, "refs/pr");
  EXPECT_EQ(parse_hf_place("models--o--m/.no_exist")->kind, Kind::no_exist);
  const auto absent = parse_hf_place(std::string("models--o--m/.no_exist/") + kCommit + "/a/b");
  ASSERT_TRUE(absent);
  EXPECT_EQ(absent->kind, Kind::no_exist_commit);
  EXPECT_EQ(absent->commit, kCommit);
  EXPECT_EQ(absent->rest, "a/b");
  EXPECT_EQ(absent->repo.id, "o/m");
}

TEST(HfNames, RefusesPathsThatAreNoFolders) {
  for (const char* path : {"x", "models--o--m/nothing", "models--o--m/blobs/x",
                           "models--o--m/.no_exist/main", "models--o--m/.locks", "."})
    EXPECT_FALSE(parse_hf_place(path)) << path;
}

TEST(HfNames, LinksClimbOutOfTheirFolders) {
  const std::string oid(40, 'a');
  const std::string sha256(64, 'b');
  const Snapshot snapshot =
      snapshot_of({{"top", 1, {oid, "", ""}}, {"a/b/deep", 2, {oid, sha256, ""}}});
  EXPECT_EQ(hf_link_target(snapshot, *snapshot.find_path("top")), "../../blobs/" + oid);
  EXPECT_EQ(hf_link_target(snapshot, *snapshot.find_path("a/b/deep")),
            "../../../../blobs/" + sha256);
}

// The hub hides the hashes of a gated repo's files: the pointer's oid must not name the bytes.
TEST(HfNames, MaskedFileHasANameOfItsPlace) {
  const RepoName repo{RepoType::model, "org/m"};
  const TreeEntry masked{"w.bin", 9, {"", "", ""}};
  const std::string name = hf_blob_name(repo, kCommit, masked);
  EXPECT_EQ(name.size(), 40U);
  EXPECT_NE(name, hf_blob_name(repo, kCommit, {"x.bin", 9, {"", "", ""}}));
  EXPECT_EQ(name, hf_blob_name(repo, kCommit, masked));
}

TEST(HfNames, TreeIsWrittenAsClientsWriteIt) {
  const Snapshot snapshot =
      snapshot_of({{"b/\xC3\xA9", 3, {std::string(40, 'a'), "", ""}},
                   {"a", 5, {std::string(40, 'c'), std::string(64, 'b'), ""}}});
  EXPECT_EQ(hf_tree_json(snapshot), cat(R"({
 "format_version": 1,
 "files": {
  "a": {
   "size": 5,
   "blob_id": ")",
                                        std::string(40, 'c'), R"(",
   "lfs_sha256": ")",
                                        std::string(64, 'b'), R"(",
   "lfs_size": 5
  },
  "b/\u00e9": {
   "size": 3,
   "blob_id": ")",
                                        std::string(40, 'a'), R"("
  }
 }
})"));
}

TEST(HfNames, TreeListsEveryFile) {
  const Snapshot snapshot = snapshot_of({{"plain", 3, {std::string(40, 'a'), "", ""}},
                                         {"w\xff.bin", 5, {"", std::string(64, 'b'), ""}}});
  const nlohmann::json tree = nlohmann::json::parse(hf_tree_json(snapshot));
  EXPECT_EQ(tree["format_version"], 1);
  EXPECT_EQ(tree["files"].size(), 2U);
  EXPECT_EQ(tree["files"]["plain"]["blob_id"], std::string(40, 'a'));
  EXPECT_FALSE(tree["files"]["plain"].contains("lfs_sha256"));
  EXPECT_EQ(tree["files"]["w\xEF\xBF\xBD.bin"]["lfs_size"], 5);
}

}  // namespace
}  // namespace cake
