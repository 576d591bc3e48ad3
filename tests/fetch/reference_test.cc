#include "fetch/reference.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

Reference parsed(std::string_view text) {
  const Result<Reference> reference = parse_reference(text);
  EXPECT_TRUE(reference) << text << ": " << (reference ? "" : reference.error().message);
  return reference ? *reference : Reference{};
}

TEST(Reference, PlainAndPrefixedFormsAreEqual) {
  const Reference wanted{{RepoType::model, "org/name"}, "v1", "a/b.json"};
  EXPECT_EQ(parsed("org/name@v1/a/b.json"), wanted);
  EXPECT_EQ(parsed("hf:org/name@v1/a/b.json"), wanted);
  EXPECT_EQ(parsed("hf://org/name@v1/a/b.json"), wanted);
  EXPECT_EQ(parsed("hf://models/org/name@v1/a/b.json"), wanted);
}

TEST(Reference, RevisionAndPathAreOptional) {
  EXPECT_EQ(parsed("org/name"), (Reference{{RepoType::model, "org/name"}, "", ""}));
  EXPECT_EQ(parsed("org/name/"), (Reference{{RepoType::model, "org/name"}, "", ""}));
  EXPECT_EQ(parsed("org/name/x/y"), (Reference{{RepoType::model, "org/name"}, "", "x/y"}));
  EXPECT_EQ(parsed("org/name@r"), (Reference{{RepoType::model, "org/name"}, "r", ""}));
}

TEST(Reference, TypesOfRepos) {
  EXPECT_EQ(parsed("hf://datasets/org/name/x").repo, (RepoName{RepoType::dataset, "org/name"}));
  EXPECT_EQ(parsed("hf:spaces/org/name").repo, (RepoName{RepoType::space, "org/name"}));
  EXPECT_EQ(parsed("dataset/org/name").repo, (RepoName{RepoType::dataset, "org/name"}));
  EXPECT_EQ(parsed("model/org/name").repo, (RepoName{RepoType::model, "org/name"}));
}

TEST(Reference, SlashInRevisionIsEscaped) {
  EXPECT_EQ(parsed("org/name@refs%2Fpr%2F1/x"),
            (Reference{{RepoType::model, "org/name"}, "refs/pr/1", "x"}));
  EXPECT_EQ(parsed("hf://org/name@refs/pr/1/x"),
            (Reference{{RepoType::model, "org/name"}, "refs/pr/1", "x"}));
  EXPECT_EQ(parsed("hf://datasets/org/name@refs/convert/parquet/x/y").revision,
            "refs/convert/parquet");
  EXPECT_EQ(parsed("org/name@feature/x").revision, "feature");
}

TEST(Reference, RepoWithoutNamespace) {
  EXPECT_EQ(parsed("gpt2").repo.id, "gpt2");
  EXPECT_EQ(parsed("gpt2@main/config.json"),
            (Reference{{RepoType::model, "gpt2"}, "main", "config.json"}));
}

TEST(Reference, AtInPathBelongsToThePath) {
  EXPECT_EQ(parsed("org/name/a@b"), (Reference{{RepoType::model, "org/name"}, "", "a@b"}));
}

TEST(Reference, TextParsesBack) {
  for (const char* text : {"hf:org/name", "hf:org/name@v1", "hf:org/name@refs%2Fpr%2F1/a/b",
                           "hf:datasets/org/name/x", "hf:gpt2@50%25"})
    EXPECT_EQ(parsed(text).text(), text);
}

TEST(Reference, RefusesWhatNoHubCanHave) {
  for (const char* text :
       {"", "/", "hf:", "hf://", "org//x", "@main", "org/name@", "org/name@/x", "org/name@a%2",
        "org/name@%00", "org/name@..", "org/name/../x", "org/name//x", ".org/name", "org/na me",
        "https://huggingface.co/org/name", "s3://bucket/x"}) {
    const Result<Reference> reference = parse_reference(text);
    ASSERT_FALSE(reference) << text;
    EXPECT_EQ(reference.error().code, Errc::invalid);
  }
  EXPECT_FALSE(parse_reference(std::string(100'000, 'a')));
}

TEST(Reference, WholeHubAndLocalPaths) {
  EXPECT_TRUE(is_whole_hub("hf:"));
  EXPECT_FALSE(is_whole_hub("hf:org/name"));
  EXPECT_TRUE(is_local_path("/mnt"));
  EXPECT_TRUE(is_local_path("."));
  EXPECT_TRUE(is_local_path("../x"));
  EXPECT_FALSE(is_local_path("org/name"));
}

}  // namespace
}  // namespace cake
