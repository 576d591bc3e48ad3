#include "fetch/hub_mirror.h"

#include <gtest/gtest.h>

#include <future>
#include <random>
#include <thread>

#include "fetch/hub_server.h"
#include "store/base/digest.h"
#include "tests/support/eventually.h"
#include "tests/support/fake_upstream.h"
#include "tests/support/http_ask.h"
#include "tests/support/names.h"
#include "tests/support/pattern.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

// A store, a scripted hub behind it, and the server in front.
class HubMirrorTest : public testing::Test {
 protected:
  HubMirrorTest() {
    StoreOptions store_options;
    store_options.directory = directory_.path();
    store_options.codec = CodecChoice::raw;
    store_ = must(Store::open(store_options, metrics_));
    ClientOptions options;
    options.fetch.is_hard = false;
    options.fetch.retrans = 1;
    options.fetch.timeo = Millis(60'000);
    auto upstream = std::make_unique<FakeUpstream>();
    upstream_ = upstream.get();
    upstream_->serve("org/m", "main", kCommit,
                     {{"w.bin", bytes_}, {"a.json", "{}"}, {"empty", ""}});
    client_ = std::make_unique<Client>(*store_, "hf:fake", std::move(upstream), options, metrics_);
    mirror_ =
        std::make_shared<HubMirror>(*client_, HubMirrorOptions{Millis(60'000), [this] {
                                                                 if (auto* server = server_.get())
                                                                   server->wake();
                                                               }});
    HubServerOptions protocol;
    protocol.pins_commits = true;
    hub_ = std::make_unique<HubServer>(*mirror_, protocol);
    server_ = must(
        HttpServer::start({}, [this](const HttpServerRequest& request, HttpResponder responder) {
          hub_->handle(request, [responder](HttpServerResponse response) {
            responder.send(std::move(response));
          });
        }));
  }
  ~HubMirrorTest() override {
    client_->stop();
    server_.reset();
    hub_.reset();
    mirror_.reset();
    client_.reset();
    store_.reset();
  }

  std::string url(const std::string& path) { return "http://" + server_->address() + path; }
  HttpAnswer get(const std::string& path, std::vector<HttpHeader> headers = {},
                 const std::string& method = "GET") {
    Asker asker;
    auto answer = asker.get(url(path), std::move(headers), method);
    if (!answer) ADD_FAILURE() << path << ": " << answer.error().message;
    return answer ? *answer : HttpAnswer{};
  }
  static std::string at_commit(const std::string& file) {
    return cat("/org/m/resolve/", kCommit, "/", file);
  }

  const TempDir directory_;
  const std::string bytes_ = random_text(5 * kMiB + 123, 1);
  Metrics metrics_;
  std::unique_ptr<Store> store_;
  FakeUpstream* upstream_ = nullptr;
  std::unique_ptr<Client> client_;
  std::shared_ptr<HubMirror> mirror_;
  std::unique_ptr<HubServer> hub_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HubMirrorTest, PullsThroughOnceAndServesWhatItHolds) {
  const HttpAnswer first = get(at_commit("w.bin"));
  EXPECT_EQ(first.head.status, 200);
  EXPECT_TRUE(first.body == bytes_);
  EXPECT_EQ(upstream_->counts().bytes, bytes_.size());
  const HttpAnswer second = get(at_commit("w.bin"), {{"Range", "bytes=1048570-3000000"}});
  EXPECT_EQ(second.head.status, 206);
  EXPECT_TRUE(second.body == bytes_.substr(1048570, 3000000 - 1048570 + 1));
  EXPECT_EQ(second.head.find("content-range"), cat("bytes 1048570-3000000/", bytes_.size()));
  EXPECT_EQ(get(at_commit("empty")).body, "");
  EXPECT_EQ(upstream_->counts().bytes, bytes_.size()) << "fetched again";
}

TEST_F(HubMirrorTest, ThreeClientsCostOneFetch) {
  ASSERT_EQ(get("/api/models/org/m").head.status, 200);
  std::vector<std::future<HttpAnswer>> answers;
  upstream_->hold();
  for (int i = 0; i < 3; i++)
    answers.push_back(std::async(std::launch::async, [&] { return get(at_commit("w.bin")); }));
  upstream_->resume();
  for (auto& answer : answers) EXPECT_TRUE(answer.get().body == bytes_);
  EXPECT_EQ(upstream_->counts().bytes, bytes_.size());
}

TEST_F(HubMirrorTest, WhatItServesIsNotEvicted) {
  ASSERT_EQ(get("/api/models/org/m").head.status, 200);
  upstream_->hold();
  auto answer = std::async(std::launch::async, [&] { return get(at_commit("w.bin")); });
  EXPECT_TRUE(eventually([&] { return must(Lease::all(directory_.path())).size() == 1; }));
  upstream_->resume();
  EXPECT_TRUE(answer.get().body == bytes_);
  EXPECT_TRUE(eventually([&] { return must(Lease::all(directory_.path())).empty(); }));
}

// A branch moves; what caches in front may keep is the answer for a commit.
TEST_F(HubMirrorTest, SendsBranchesToTheirCommit) {
  const HttpAnswer branch = get("/org/m/resolve/main/w.bin");
  EXPECT_EQ(branch.head.status, 307);
  EXPECT_EQ(branch.head.find("location"), at_commit("w.bin"));
  EXPECT_EQ(branch.head.find("cache-control"), "no-cache");
  EXPECT_EQ(branch.head.find("x-repo-commit"), kCommit);
  EXPECT_EQ(branch.head.find("x-linked-size"), std::to_string(bytes_.size()));
  const HttpAnswer fixed = get(at_commit("w.bin"), {}, "HEAD");
  EXPECT_EQ(fixed.head.status, 200);
  EXPECT_EQ(fixed.head.find("cache-control"), "public, max-age=31536000, immutable");
  EXPECT_EQ(fixed.head.find("content-length"), std::to_string(bytes_.size()));
  EXPECT_EQ(fixed.head.find("accept-ranges"), "bytes");
  const std::string etag(fixed.head.find("etag"));
  EXPECT_EQ(etag, fixed.head.find("x-linked-etag"));
  EXPECT_EQ(get(at_commit("w.bin"), {{"If-None-Match", etag}}).head.status, 304);
  EXPECT_EQ(
      get(at_commit("w.bin"), {{"If-Range", "\"other\""}, {"Range", "bytes=0-1"}}).head.status, 200)
      << "another version's range";
  EXPECT_EQ(get("/api/models/org/m").head.find("cache-control"), "no-cache");
  EXPECT_EQ(get(cat("/api/models/org/m/tree/", kCommit)).head.find("cache-control"),
            "public, max-age=31536000, immutable");
}

TEST_F(HubMirrorTest, HeadFetchesNothing) {
  EXPECT_EQ(get(at_commit("w.bin"), {}, "HEAD").head.status, 200);
  EXPECT_EQ(upstream_->counts().reads, 0U);
}

TEST_F(HubMirrorTest, TellsWhatIsMissing) {
  for (const std::string token : {"", "Bearer t"}) {
    const HttpAnswer repo = get("/api/models/org/none/revision/v1", {{"Authorization", token}});
    EXPECT_EQ(repo.head.status, 404) << token;
    EXPECT_EQ(repo.head.find("x-error-code"), "RepoNotFound") << token;
  }
  const HttpAnswer revision = get("/api/models/org/m/revision/v9");
  EXPECT_EQ(revision.head.status, 404);
  EXPECT_EQ(revision.head.find("x-error-code"), "RevisionNotFound");
  const HttpAnswer file = get(at_commit("none"));
  EXPECT_EQ(file.head.status, 404);
  EXPECT_EQ(file.head.find("x-error-code"), "EntryNotFound");
  EXPECT_EQ(file.head.find("x-repo-commit"), kCommit);
  EXPECT_EQ(file.head.find("cache-control"), "no-store");
}

TEST_F(HubMirrorTest, ServesWhatItHoldsWhenTheHubIsDown) {
  EXPECT_EQ(get(at_commit("a.json")).body, "{}");
  EXPECT_EQ(get("/org/m/resolve/main/a.json").head.status, 307);
  upstream_->set_down(Error{Errc::offline, "down"});
  upstream_->fail_next_reads({{Error{Errc::offline, "down"}, 0},
                              {Error{Errc::offline, "down"}, 0},
                              {Error{Errc::offline, "down"}, 0},
                              {Error{Errc::offline, "down"}, 0}});
  EXPECT_EQ(get(at_commit("a.json")).body, "{}");
  EXPECT_EQ(get("/org/m/resolve/main/a.json").head.status, 307);
  const HttpAnswer absent = get(at_commit("w.bin"));
  EXPECT_EQ(absent.head.status, 503);
  EXPECT_EQ(absent.head.find("retry-after"), "5");
  EXPECT_EQ(get("/api/models/org/other").head.status, 503);
}

TEST_F(HubMirrorTest, ListsWhatItKnows) {
  EXPECT_EQ(get("/api/models").body, "[]");
  ASSERT_EQ(get("/api/models/org/m").head.status, 200);
  EXPECT_NE(get("/api/models").body.find("\"org/m\""), std::string::npos);
  EXPECT_EQ(get("/api/datasets").body, "[]");
  const HttpAnswer refs = get("/api/models/org/m/refs");
  EXPECT_NE(refs.body.find(kCommit), std::string::npos) << refs.body;
}

}  // namespace
}  // namespace cake
