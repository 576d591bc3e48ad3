#include "fetch/hub_route.h"

#include <gtest/gtest.h>

#include <set>

namespace cake {
namespace {

using Kind = HubRoute::Kind;

HubRoute parse(std::string_view path, const std::set<std::string>& repos = {"org/m", "gpt2"}) {
  return parse_hub_route(path, [&](const RepoName& repo) { return repos.contains(repo.id); });
}

TEST(HubRoute, KnowsWhatTheApiIsAskedFor) {
  EXPECT_EQ(parse("/api/whoami-v2").kind, Kind::whoami);
  EXPECT_EQ(parse("/api/models").kind, Kind::list);
  EXPECT_EQ(parse("/api/models/org/m").kind, Kind::info);
  EXPECT_EQ(parse("/api/models/org/m/refs").kind, Kind::refs);
  EXPECT_EQ(parse("/api/models/org/m/auth-check").kind, Kind::auth_check);
  const HubRoute tree = parse("/api/datasets/o/d/tree/refs%2Fpr%2F1/a%2Fb/c/");
  EXPECT_EQ(tree.kind, Kind::tree);
  EXPECT_EQ(tree.repo, (RepoName{RepoType::dataset, "o/d"}));
  EXPECT_EQ(tree.revision, "refs/pr/1");
  EXPECT_EQ(tree.path, "a/b/c");
  EXPECT_EQ(parse("/api/models/org/m/tree/refs/pr/1/a").revision, "refs/pr/1");
}

TEST(HubRoute, TellsShortIdsFromLongOnes) {
  EXPECT_EQ(parse("/api/models/gpt2").repo.id, "gpt2");
  EXPECT_EQ(parse("/api/models/gpt2/refs").kind, Kind::refs);
  EXPECT_EQ(parse("/api/models/gpt2/refs").repo.id, "gpt2");
  EXPECT_EQ(parse("/api/models/org/refs", {"org/refs"}).repo.id, "org/refs");
  EXPECT_EQ(parse("/gpt2/resolve/main/a").repo.id, "gpt2");
  EXPECT_EQ(parse("/resolve/resolve/resolve/main/a").repo.id, "resolve/resolve");
}

TEST(HubRoute, TakesFilesApart) {
  const HubRoute file = parse("/spaces/o/s/resolve/v1.0/a%20b/c%2Bd");
  EXPECT_EQ(file.kind, Kind::resolve);
  EXPECT_EQ(file.repo, (RepoName{RepoType::space, "o/s"}));
  EXPECT_EQ(file.revision, "v1.0");
  EXPECT_EQ(file.path, "a b/c+d");
  EXPECT_EQ(parse("/org/m/raw/HEAD/x").revision, "main");
  EXPECT_EQ(parse("/api/resolve-cache/models/org/m/abc/x/y").kind, Kind::resolve_cache);
  EXPECT_EQ(parse("/api/resolve-cache/models/gpt2/abc/x/y").path, "x/y");
}

TEST(HubRoute, RefusesTheRest) {
  for (const char* path : {"", "/", "/x", "/api", "/api/none", "/api/models/org/m/none/x",
                           "/org/m/resolve", "/org/m/resolve/main", "/org/m/resolve/%zz/x",
                           "/api/resolve-cache/models/org", "/a/b/c/resolve/main/x"})
    EXPECT_EQ(parse(path).kind, Kind::none) << path;
  EXPECT_EQ(parse("/api/models/org/m/tree/%zz").kind, Kind::malformed);
  EXPECT_EQ(parse("/api/models/org/m/tree/main/%00").kind, Kind::malformed);
}

}  // namespace
}  // namespace cake
