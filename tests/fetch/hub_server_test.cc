#include "fetch/hub_server.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fetch/url.h"
#include "store/base/digest.h"
#include "tests/support/fake_hub.h"
#include "tests/support/http_ask.h"
#include "tests/support/pattern.h"

namespace cake {
namespace {

using Json = nlohmann::json;

Buffer text(std::string_view words) {
  return to_buffer(as_bytes(words));
}

class HubServerTest : public testing::Test {
 protected:
  HubServerTest() : hub_(FakeHubOptions{.page_limit = 3}) {
    hub_.add("org/m", "config.json", text("{\"a\":1}\n"));
    hub_.add("org/m", "model.safetensors", pattern_bytes(100'000));
    hub_.add("org/m", "sub/dir/a b#?%\xc3\xa9.txt", text("odd"));
    hub_.add("org/m", "sub/empty", {});
    hub_.add("org/m", "x", text("pr"), "refs/pr/1");
    hub_.add("org/m", "x", text("tag"), "refs/tags/v1");
    hub_.add("legacy", "README.md", text("old"));
    hub_.content().add_bytes({RepoType::dataset, "o/d"}, "main", "data.csv", text("1,2\n"));
  }
  HttpAnswer get(const std::string& path, std::vector<HttpHeader> headers = {},
                 const std::string& method = "GET") {
    auto answer = asker_.get(hub_.url() + path, std::move(headers), method);
    if (!answer) ADD_FAILURE() << path << ": " << answer.error().message;
    return answer ? *answer : HttpAnswer{};
  }
  Json json(const std::string& path) {
    const HttpAnswer answer = get(path);
    EXPECT_EQ(answer.head.status, 200) << path << ": " << answer.body;
    return Json::parse(answer.body, nullptr, false);
  }
  // Every page, in one list.
  Json pages(std::string path) {
    Json all = Json::array();
    for (int page = 0; page < 100 && !path.empty(); page++) {
      const HttpAnswer answer = get(path);
      const Json list = Json::parse(answer.body, nullptr, false);
      EXPECT_LE(list.size(), 3U);
      for (const Json& one : list) all.push_back(one);
      const std::string link(answer.head.find("link"));
      path = link.empty() ? "" : link.substr(1, link.find('>') - 1).substr(hub_.url().size());
      EXPECT_TRUE(link.empty() || link.starts_with("<" + hub_.url() + "/api/")) << link;
    }
    return all;
  }
  static std::vector<std::string> names(const Json& list, const char* key) {
    std::vector<std::string> out;
    for (const Json& one : list) out.push_back(one[key]);
    return out;
  }

  FakeHub hub_;
  Asker asker_;
};

using Names = std::vector<std::string>;

TEST_F(HubServerTest, ListsRepos) {
  EXPECT_EQ(names(pages("/api/models"), "id"), (Names{"legacy", "org/m"}));
  EXPECT_EQ(names(pages("/api/models?author=org"), "id"), Names{"org/m"});
  EXPECT_EQ(names(pages("/api/models?search=ega"), "id"), Names{"legacy"});
  EXPECT_EQ(names(pages("/api/models?limit=1"), "id"), (Names{"legacy", "org/m"}));
  EXPECT_EQ(names(pages("/api/datasets"), "id"), Names{"o/d"});
  EXPECT_EQ(pages("/api/models?author=nobody").size(), 0U);
}

TEST_F(HubServerTest, TellsOfARepo) {
  const std::string commit = hub_.commit("org/m");
  for (const char* path :
       {"/api/models/org/m", "/api/models/org/m/revision/main", "/api/models/org/m/revision/HEAD"})
    EXPECT_EQ(json(path)["sha"], commit) << path;
  EXPECT_EQ(json("/api/models/org/m/revision/" + commit)["sha"], commit);
  const Json info = json("/api/models/org/m?blobs=true");
  EXPECT_EQ(info["id"], "org/m");
  EXPECT_EQ(info["private"], false);
  EXPECT_EQ(info["gated"], false);
  EXPECT_TRUE(parse_rfc3339(std::string(info["lastModified"])));
  const Json& weights = info["siblings"][1];
  EXPECT_EQ(weights["rfilename"], "model.safetensors");
  EXPECT_EQ(weights["lfs"]["sha256"], file_hash_hex(FileHash::sha256, pattern_bytes(100'000)));
  EXPECT_EQ(json("/api/models/legacy")["id"], "legacy");
  EXPECT_EQ(json("/api/datasets/o/d")["id"], "o/d");
}

TEST_F(HubServerTest, ListsTrees) {
  const Names all = {"config.json", "model.safetensors",          "sub",
                     "sub/dir",     "sub/dir/a b#?%\xc3\xa9.txt", "sub/empty"};
  EXPECT_EQ(names(pages("/api/models/org/m/tree/main?recursive=true"), "path"), all);
  EXPECT_EQ(names(pages("/api/models/org/m/tree/main?recursive=true&limit=1"), "path"), all);
  EXPECT_EQ(names(pages("/api/models/org/m/tree/main"), "path"),
            (Names{"config.json", "model.safetensors", "sub"}));
  for (const char* path : {"sub/dir", "sub%2Fdir"})
    EXPECT_EQ(pages(cat("/api/models/org/m/tree/main/", path)).size(), 1U) << path;
  const Json files = pages("/api/models/org/m/tree/main");
  EXPECT_EQ(files[0]["type"], "file");
  EXPECT_EQ(files[0]["size"], 8);
  // `printf '{"a":1}\n' | git hash-object --stdin`
  EXPECT_EQ(files[0]["oid"], "0187f3b09d66cef7911083ad49f890f5a6589589");
  EXPECT_FALSE(files[0].contains("lfs"));
  EXPECT_EQ(files[1]["lfs"]["size"], 100'000);
  EXPECT_EQ(files[1]["lfs"]["oid"], file_hash_hex(FileHash::sha256, pattern_bytes(100'000)));
  EXPECT_EQ(files[2]["type"], "directory");
}

TEST_F(HubServerTest, KnowsBranchesTagsAndPullRequests) {
  const Json refs = json("/api/models/org/m/refs?include_prs=1");
  EXPECT_EQ(refs["branches"][0]["name"], "main");
  EXPECT_EQ(refs["branches"][0]["ref"], "refs/heads/main");
  EXPECT_EQ(refs["branches"][0]["targetCommit"], hub_.commit("org/m"));
  EXPECT_EQ(refs["tags"][0]["name"], "v1");
  EXPECT_EQ(refs["pullRequests"][0]["ref"], "refs/pr/1");
  EXPECT_FALSE(json("/api/models/org/m/refs").contains("pullRequests"));
  for (const char* revision : {"refs%2Fpr%2F1", "refs/pr/1"})
    EXPECT_EQ(get(cat("/org/m/resolve/", revision, "/x")).body, "pr") << revision;
  for (const char* revision : {"v1", "refs%2Ftags%2Fv1"})
    EXPECT_EQ(get(cat("/org/m/resolve/", revision, "/x")).body, "tag") << revision;
}

TEST_F(HubServerTest, ServesFilesAndRanges) {
  const std::string commit = hub_.commit("org/m");
  const HttpAnswer whole = get("/org/m/resolve/main/config.json?download=true");
  EXPECT_EQ(whole.head.status, 200);
  EXPECT_EQ(whole.body, "{\"a\":1}\n");
  EXPECT_EQ(whole.head.find("x-repo-commit"), commit);
  EXPECT_EQ(whole.head.find("etag"), "\"0187f3b09d66cef7911083ad49f890f5a6589589\"");
  EXPECT_EQ(whole.head.find("x-linked-size"), "8");
  const std::string weights = "/org/m/resolve/" + commit + "/model.safetensors";
  const HttpAnswer part = get(weights, {{"Range", "bytes=1000-1999"}});
  EXPECT_EQ(part.head.status, 206);
  EXPECT_EQ(part.head.find("content-range"), "bytes 1000-1999/100000");
  EXPECT_EQ(part.body, as_text(pattern_bytes(0, 1000, 1000)));
  EXPECT_NE(part.head.find("cache-control").find("immutable"), std::string::npos);
  EXPECT_EQ(get(weights, {{"Range", "bytes=100000-"}}).head.status, 416);
  EXPECT_EQ(get("/org/m/resolve/main/sub/dir/a%20b%23%3F%25%C3%A9.txt").body, "odd");
  EXPECT_EQ(get("/org/m/resolve/main/sub/empty", {{"Range", "bytes=0-9"}}).head.status, 200);
  EXPECT_EQ(get("/legacy/resolve/main/README.md").body, "old");
  EXPECT_EQ(get("/datasets/o/d/resolve/main/data.csv").body, "1,2\n");
}

TEST_F(HubServerTest, AnswersHeadAndKnownEtags) {
  const HttpAnswer head = get("/org/m/resolve/main/model.safetensors", {}, "HEAD");
  EXPECT_EQ(head.head.status, 200);
  EXPECT_EQ(head.head.find("content-length"), "100000");
  EXPECT_EQ(head.body, "");
  const std::string etag(head.head.find("etag"));
  const HttpAnswer same =
      get("/org/m/resolve/main/model.safetensors", {{"If-None-Match", "\"other\", W/" + etag}});
  EXPECT_EQ(same.head.status, 304);
  EXPECT_EQ(same.body, "");
}

TEST_F(HubServerTest, GivesPointersRaw) {
  const std::string pointer = get("/org/m/raw/main/model.safetensors").body;
  EXPECT_EQ(pointer, lfs_pointer(file_hash_hex(FileHash::sha256, pattern_bytes(100'000)), 100'000));
  EXPECT_EQ(get("/org/m/raw/main/config.json").body, "{\"a\":1}\n");
}

TEST_F(HubServerTest, NamesWhatIsMissing) {
  const auto expect = [&](const std::string& path, int status, std::string_view code) {
    const HttpAnswer answer = get(path);
    EXPECT_EQ(answer.head.status, status) << path;
    EXPECT_EQ(answer.head.find("x-error-code"), code) << path;
    return answer;
  };
  const HttpAnswer entry = expect("/org/m/resolve/main/nope", 404, "EntryNotFound");
  EXPECT_EQ(entry.head.find("x-repo-commit"), hub_.commit("org/m"));
  expect("/org/m/resolve/main/sub", 404, "EntryNotFound");
  expect("/org/m/resolve/nope/config.json", 404, "RevisionNotFound");
  expect("/api/models/org/m/tree/nope", 404, "RevisionNotFound");
  expect("/api/models/org/m/tree/main/nope", 404, "EntryNotFound");
  expect(cat("/api/models/org/m/revision/", std::string(40, '0')), 404, "RevisionNotFound");
  expect("/org/nope/resolve/main/config.json", 401, "");
  expect("/api/models/org/nope", 401, "");
  expect("/nothing", 404, "");
  expect("/api/nothing", 404, "");
  expect("/org/m/resolve/main/%zz", 404, "");
}

TEST_F(HubServerTest, NeverLeavesTheTree) {
  for (const char* path : {"../../etc/passwd", "..%2F..%2Fetc%2Fpasswd", "%2e%2e/%2e%2e/etc/passwd",
                           "/etc/passwd", "sub/../config.json", "./config.json"})
    EXPECT_EQ(get(cat("/org/m/resolve/main/", path)).head.status, 404) << path;
}

TEST_F(HubServerTest, RefusesNamesWithControlCharactersInHeaders) {
  const HttpAnswer answer = get("/org/m/resolve/a%0d%0aX-Evil:%20b/config.json");
  EXPECT_EQ(answer.head.status, 404);
  EXPECT_EQ(answer.head.find("x-evil"), "");
}

TEST_F(HubServerTest, AnswersPathsInfo) {
  RawConnection peer(static_cast<uint16_t>(std::stoi(hub_.url().substr(17))));
  const std::string body = R"({"paths":["config.json","nope","sub","sub/empty"],"expand":false})";
  peer.send(
      cat("POST /api/models/org/m/paths-info/main HTTP/1.1\r\nHost: h\r\nConnection: "
          "close\r\nContent-Type: application/json\r\nContent-Length: ",
          body.size(), "\r\n\r\n", body));
  const std::string answer = peer.read_until("");
  const Json list = Json::parse(answer.substr(answer.find("\r\n\r\n") + 4), nullptr, false);
  EXPECT_EQ(names(list, "path"), (Names{"config.json", "sub", "sub/empty"})) << answer;
}

TEST_F(HubServerTest, RedirectsPlainFilesToTheCache) {
  hub_.set_shape(FakeShape::hub);
  const HttpAnswer first = get("/org/m/resolve/main/sub/dir/a%20b%23%3F%25%C3%A9.txt");
  EXPECT_EQ(first.head.status, 307);
  EXPECT_EQ(first.head.find("etag"), "");
  EXPECT_EQ(first.head.find("x-repo-commit"), hub_.commit("org/m"));
  const std::string location(first.head.find("location"));
  EXPECT_TRUE(location.starts_with("/api/resolve-cache/models/org/m/")) << location;
  EXPECT_EQ(get(location).body, "odd");
  EXPECT_EQ(get("/api/resolve-cache/models/org/m/main/config.json").head.status, 400);
  EXPECT_EQ(get(cat("/api/resolve-cache/models/org/m/", std::string(40, '0'), "/config.json"))
                .head.status,
            404);
  EXPECT_EQ(get("/org/m/resolve/main/sub/empty").head.status, 200);  // as hubs do
}

TEST_F(HubServerTest, RedirectsWeightsToTheCdn) {
  hub_.set_shape(FakeShape::hub);
  const HttpAnswer first = get("/org/m/resolve/main/model.safetensors");
  EXPECT_EQ(first.head.status, 302);
  EXPECT_EQ(first.head.find("x-linked-size"), "100000");
  EXPECT_EQ(first.head.find("etag"), "");
  const std::string location(first.head.find("location"));
  EXPECT_TRUE(location.starts_with(hub_.cdn_url())) << location;
  const auto part = asker_.get(location, {{"Range", "bytes=5-9"}});
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_EQ(part->head.status, 206);
  EXPECT_EQ(part->body, as_text(pattern_bytes(0, 5, 5)));
  EXPECT_NE(part->head.find("etag"), first.head.find("x-linked-etag"));
}

TEST_F(HubServerTest, HidesPrivateRepos) {
  hub_.add_token("good", {"org/m"});
  hub_.add_token("other", {"legacy"});
  hub_.set_access("org/m", HubAccess::hidden);
  const std::string path = "/org/m/resolve/main/config.json";
  EXPECT_EQ(get(path).head.status, 401);
  EXPECT_EQ(get(path, {{"Authorization", "Bearer good"}}).head.status, 200);
  const HttpAnswer other = get(path, {{"Authorization", "Bearer other"}});
  EXPECT_EQ(other.head.status, 404);
  EXPECT_EQ(other.head.find("x-error-code"), "RepoNotFound");
  EXPECT_EQ(get(path, {{"Authorization", "Bearer made-up"}}).head.status, 401);
  EXPECT_EQ(names(pages("/api/models"), "id"), Names{"legacy"});
}

TEST_F(HubServerTest, GatesFilesAndMasksHashes) {
  hub_.add_token("good", {"org/m"});
  hub_.add_token("other", {});
  hub_.set_access("org/m", HubAccess::gated);
  // The gate comes before the question whether the file exists.
  for (const char* file : {"config.json", "nope"}) {
    const HttpAnswer anonymous = get(cat("/org/m/resolve/main/", file));
    EXPECT_EQ(anonymous.head.status, 401);
    EXPECT_EQ(anonymous.head.find("x-error-code"), "GatedRepo");
  }
  EXPECT_EQ(get("/org/m/resolve/main/config.json", {{"Authorization", "Bearer other"}}).head.status,
            403);
  EXPECT_EQ(pages("/api/models/org/m/tree/main")[1]["lfs"]["oid"], std::string(64, '*'));
  EXPECT_EQ(json("/api/models/org/m")["gated"], "manual");
  EXPECT_EQ(get("/org/m/resolve/main/config.json", {{"Authorization", "Bearer good"}}).head.status,
            200);
}

TEST_F(HubServerTest, KeepsACommitWhenTheBranchMoves) {
  const std::string before = hub_.commit("org/m");
  hub_.add("org/m", "config.json", text("new"));
  const std::string after = hub_.commit("org/m");
  EXPECT_NE(before, after);
  EXPECT_EQ(get("/org/m/resolve/main/config.json").body, "new");
  EXPECT_EQ(get("/org/m/resolve/" + before + "/config.json").body, "{\"a\":1}\n");
}

TEST_F(HubServerTest, KnowsNoOtherMethods) {
  EXPECT_EQ(get("/org/m/resolve/main/config.json", {}, "DELETE").head.status, 405);
}

}  // namespace
}  // namespace cake
