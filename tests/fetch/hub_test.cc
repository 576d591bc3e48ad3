#include "fetch/hub.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <latch>

#include "fetch/hub_parse.h"
#include "tests/support/names.h"
#include "tests/support/sanitized.h"
#include "tests/support/scripted_server.h"

namespace cake {
namespace {

constexpr Millis kHubPatience{10'000};
const std::string kOid(40, 'a');
const std::string kSha(64, 'b');
const std::string kToken = "hf_secret";

std::string pattern(size_t bytes) {
  std::string out(bytes, '\0');
  for (size_t i = 0; i < bytes; i++) out[i] = static_cast<char>('A' + (i * 7 + i / 64) % 50);
  return out;
}
const std::string kFile = pattern(10'000);

// Collects; may be told to stop after so many bytes.
class Sink final : public RangeSink {
 public:
  explicit Sink(uint64_t first) : next_(first) {}
  bool on_bytes(uint64_t offset, ByteSpan bytes) override {
    EXPECT_EQ(offset, next_);
    next_ += bytes.size();
    bytes_ += as_text(bytes);
    return bytes_.size() < stop_after;
  }
  void on_end(Status status) override { end_.set_value({std::move(status), std::move(bytes_)}); }

  struct Got {
    Status status;
    std::string bytes;
  };
  Got wait() { return end_.get_future().get(); }

  size_t stop_after = SIZE_MAX;

 private:
  uint64_t next_;
  std::string bytes_;
  std::promise<Got> end_;
};

template <typename T>
struct Waiter {
  std::promise<Result<T>> promise;
  Done<T> done() {
    return [this](Result<T> result) { promise.set_value(std::move(result)); };
  }
  Result<T> wait() { return promise.get_future().get(); }
};

// A hub on one origin, its storage on another.
class HubTest : public testing::Test {
 protected:
  using Script = ScriptedServer::Script;

  // Call once, before the first question.
  HubUpstream& start(Script hub_script, Script cdn_script = nullptr, std::string token = kToken) {
    if (cdn_script) cdn_ = std::make_unique<ScriptedServer>(std::move(cdn_script));
    hub_server_ = std::make_unique<ScriptedServer>(std::move(hub_script));
    HttpOptions options;
    options.threads = 2;
    options.stall_timeout = Millis(500);
    http_ = std::make_unique<HttpClient>(options, metrics_);
    HubOptions hub_options;
    hub_options.endpoint = *parse_endpoint(hub_server_->url("/"));
    hub_options.backoff = {Millis(10), Millis(50)};
    const auto environment = [&](const char* name) -> std::optional<std::string> {
      return std::string_view(name) == "HF_TOKEN" ? std::optional(token) : std::nullopt;
    };
    hub_ = std::make_unique<HubUpstream>(
        *http_, hub_options, std::make_shared<const Credentials>("", environment), metrics_);
    return *hub_;
  }

  Result<RevisionInfo> resolve(const std::string& revision, Millis patience = kHubPatience) {
    Waiter<RevisionInfo> waiter;
    hub_->resolve_revision(kRepo, revision, Deadline::after(patience), waiter.done());
    return waiter.wait();
  }
  Result<std::vector<TreeEntry>> list() {
    Waiter<std::vector<TreeEntry>> waiter;
    hub_->list_tree(kRepo, kCommit, Deadline::after(kHubPatience), waiter.done());
    return waiter.wait();
  }
  Result<std::vector<std::string>> repos(const std::string& author, ListPart part = ListPart::all) {
    Waiter<RepoList> waiter;
    hub_->list_repos(RepoType::model, author, part, Deadline::after(kHubPatience), waiter.done());
    const Result<RepoList> list = waiter.wait();
    if (!list) return list.error();
    EXPECT_TRUE(list->is_whole || part == ListPart::first_page);
    return list->ids;
  }

  static FileAddress address() {
    return {kRepo, kCommit, "dir/w #1.bin", FileIds{"", kSha, ""}, kFile.size()};
  }
  std::shared_ptr<Sink> begin(ByteRange range, Deadline deadline = Deadline::after(kHubPatience),
                              const FileAddress& file = address()) {
    auto sink = std::make_shared<Sink>(range.offset);
    hub_->read(file, range, true, std::move(deadline), sink);
    return sink;
  }
  Sink::Got read(ByteRange range, const FileAddress& file = address()) {
    return begin(range, Deadline::after(kHubPatience), file)->wait();
  }
  void expect_read(ByteRange range) {
    const Sink::Got got = read(range);
    EXPECT_TRUE(got.status) << got.status.error().message;
    EXPECT_EQ(got.bytes, kFile.substr(range.offset, range.length));
  }
  // Fails with `code`, and nothing wrong reached the sink.
  void expect_failure(ByteRange range, Errc code) {
    const Sink::Got got = read(range);
    ASSERT_FALSE(got.status);
    EXPECT_EQ(got.status.error().code, code) << got.status.error().message;
    EXPECT_EQ(got.status.error().message.find(kToken), std::string::npos);
    EXPECT_EQ(got.bytes, kFile.substr(range.offset, got.bytes.size()));
  }

  static constexpr std::string_view kResolve =
      "/org/name/resolve/cccccccccccccccccccccccccccccccccccccccc/dir/w%20%231.bin";

  // The hub's answer for a large file, with a signature that lives so long.
  ScriptedReply signed_redirect(int64_t life_seconds = 3600) {
    const int number = ++signatures_;
    return response(
        302,
        cat("Location: ", cdn_->url("/blob?sig=" + std::to_string(number)),
            "&Expires=", unix_now() + life_seconds, "\r\nX-Linked-Etag: \"", kSha,
            "\"\r\nX-Linked-Size: ", kFile.size(), "\r\nX-Repo-Commit: ", kCommit, "\r\n"),
        "Found. Redirecting.");
  }

  Metrics metrics_;
  std::atomic<int> signatures_{0};
  std::unique_ptr<ScriptedServer> cdn_, hub_server_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<HubUpstream> hub_;  // first to go
};

// --- Names ---------------------------------------------------------------------------------------

TEST_F(HubTest, ResolvesARevisionAsOneSegment) {
  start([](const auto&) {
    return response(200, "",
                    cat(R"({"id":"new/name","siblings":[{"sha":"x"}],"sha":")", kCommit,
                        R"(","lastModified":"2026-01-02T03:04:05.000Z"})"));
  });
  const auto got = resolve("refs/pr/7");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->commit, kCommit);
  EXPECT_EQ(got->canonical_id, "new/name");
  EXPECT_EQ(got->last_modified, 1767323045);
  EXPECT_EQ(hub_server_->requests()[0].target, "/api/models/org/name/revision/refs%2Fpr%2F7");
  EXPECT_EQ(hub_server_->requests()[0].header("Authorization"), "Bearer " + kToken);
  EXPECT_EQ(hub_->source(), "hf:" + hub_server_->url());
}

TEST_F(HubTest, RefusesAnotherCommitThanAskedFor) {
  start([](const auto&) {
    return response(200, "", cat(R"({"id":"org/name","sha":")", std::string(40, 'd'), "\"}"));
  });
  EXPECT_EQ(resolve(kCommit).error().code, Errc::upstream);
}

TEST_F(HubTest, FollowsARenameOnTheSameHostWithTheToken) {
  start([](const ScriptedRequest& request) {
    if (request.target.starts_with("/api/models/org/name"))
      return response(307, "Location: /api/models/new/name/revision/main\r\n", "Temporary");
    return response(200, "", cat(R"({"id":"new/name","sha":")", kCommit, "\"}"));
  });
  const auto got = resolve("main");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->canonical_id, "new/name");
  EXPECT_EQ(hub_server_->requests()[1].header("Authorization"), "Bearer " + kToken);
}

TEST_F(HubTest, MetadataTokenStaysHomeOnARedirectAway) {
  start(
      [this](const auto&) {
        return response(302, "Location: " + cdn_->url("/elsewhere") + "\r\n", "");
      },
      [](const auto&) {
        return response(200, "", cat(R"({"id":"org/name","sha":")", kCommit, "\"}"));
      });
  ASSERT_TRUE(resolve("main"));
  EXPECT_EQ(cdn_->requests()[0].header("Authorization"), "");
}

TEST_F(HubTest, EndlessRedirectsEnd) {
  start([](const ScriptedRequest& request) {
    return response(307, "Location: " + request.target + "x\r\n", "");
  });
  EXPECT_EQ(resolve("main").error().code, Errc::upstream);
  EXPECT_EQ(hub_server_->requests().size(), 27U);  // asked three times, as nonsense is
}

TEST_F(HubTest, ListsPagesAndTreatsMaskedHashesAsAbsent) {
  start([this](const ScriptedRequest& request) {
    if (request.target.find("cursor") == std::string::npos)
      return response(
          200,
          cat("Link: <https://x/>; rel=\"prev\", <",
              hub_server_->url("/api/models/org/name/tree/x?recursive=true&cursor=a"),
              ">; rel=\"next\"\r\n"),
          cat(R"([{"type":"directory","path":"d","size":0,"oid":"x"},{"type":"file","path":"a","size":5,"oid":")",
              kOid, R"("},{"type":"submodule"}])"));
    return response(
        200, "",
        cat(R"([{"type":"file","path":"d/w","size":9,"oid":")", kOid, R"(","lfs":{"oid":")", kSha,
            R"(","size":9},"xetHash":")", std::string(64, '*'),
            R"("},{"type":"file","path":"m","size":9,"lfs":{"oid":")", std::string(64, '*'),
            R"("}}])"));
  });
  const auto got = list();
  ASSERT_TRUE(got) << got.error().message;
  const std::vector<TreeEntry> want{
      {"a", 5, {kOid, "", ""}}, {"d/w", 9, {kOid, kSha, ""}}, {"m", 9, {"", "", ""}}};
  EXPECT_EQ(*got, want);
  EXPECT_EQ(hub_server_->requests()[0].target,
            "/api/models/org/name/tree/" + kCommit + "?recursive=true");
}

TEST_F(HubTest, PagesInACircleEnd) {
  start([this](const auto&) {
    return response(200, cat("Link: <", hub_server_->url("/api/x?cursor=1"), ">; rel=\"next\"\r\n"),
                    "[]");
  });
  EXPECT_EQ(list().error().code, Errc::upstream);
  EXPECT_EQ(hub_server_->requests().size(), 2U);
}

TEST_F(HubTest, APageThatNamesAnotherHostIsAskedForHere) {
  start(
      [this](const ScriptedRequest& request) {
        const bool is_first = request.target.find("cursor") == std::string::npos;
        const std::string entry =
            cat(R"([{"type":"file","size":5,"path":")", is_first ? "a" : "b", R"("}])");
        const std::string link =
            "Link: <" + cdn_->url("/inside/x?cursor=1") + ">; rel=\"next\"\r\n";
        return response(200, is_first ? link : "", entry);
      },
      [](const auto&) { return response(200, "", "[]"); });
  const auto got = list();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->size(), 2U);
  EXPECT_EQ(cdn_->requests().size(), 0U);
  EXPECT_EQ(hub_server_->requests().back().target,
            "/api/models/org/name/tree/" + kCommit + "?cursor=1");
}

// "[a,a,…,b,b,…]"
std::string many(std::string_view a, std::string_view b, size_t count) {
  std::string text = "[";
  for (const std::string_view each : {a, b})
    for (size_t i = 0; i < count; i++) text.append(each).append(",");
  text.back() = ']';
  return text;
}

// A parser that goes through all of a list with each of its objects would not end in time.
TEST_F(HubTest, WhatEntriesHoldBesideIsNotLookedAt) {
  const std::string more = many("{}", "{\"a\":{}}", kIsSanitized ? 50'000 : 300'000);
  start([&](const auto&) {
    return response(200, "",
                    cat(R"([{"x":)", more, R"(,"type":"file","lfs":)", more,
                        R"(,"path":"a","size":5,"oid":)", more, "}]"));
  });
  const auto got = list();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, (std::vector<TreeEntry>{{"a", 5, {}}}));
}

TEST_F(HubTest, MalformedTreesAreUpstream) {
  std::string body;
  start([&](const auto&) { return response(200, "", body); });
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("null"), std::string("[1]"),
        std::string("[[]]"), std::string("[{\"type\":\"file\",\"path\":\"a\"}]"),
        std::string("[{\"type\":\"file\",\"path\":\"a\",\"size\":-1}]"),
        std::string("[{\"type\":\"file\",\"path\":\"a\",\"size\":1e300}]"),
        std::string("[{\"type\":\"file\",\"path\":7,\"size\":1}]"),
        std::string("[{\"type\":\"file\",\"path\":\"a\",\"size\":18446744073709551615}]"),
        std::string("[{\"type\":\"file\""), std::string(100'000, '['),
        "[{\"a\":" + std::string(1'000, '[') + std::string(1'000, ']') + "}]",
        many("0", "{}", kIsSanitized ? 100'000 : 700'000)}) {
    body = bad;
    const auto got = list();
    ASSERT_FALSE(got) << bad.substr(0, 80);
    EXPECT_EQ(got.error().code, Errc::upstream);
  }
}

TEST_F(HubTest, ListsTheReposOfAnAuthorOnly) {
  start([](const auto&) {
    return response(
        200, "",
        R"([{"id":"Org/a"},{"id":"other/b"},{"id":"org/../c"},{"name":"e"},{"id":"org/d"}])");
  });
  const auto got = repos("org");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, (std::vector<std::string>{"Org/a", "org/d"}));
  EXPECT_EQ(hub_server_->requests()[0].target, "/api/models?author=org&limit=1000");
}

TEST_F(HubTest, EmptyAuthorIsNotFound) {
  start([](const auto&) { return response(200, "", "[]"); });
  EXPECT_EQ(repos("nobody").error().code, Errc::not_found);
}

TEST_F(HubTest, OnePageTellsWhetherThereIsAnAuthor) {
  start([this](const ScriptedRequest& request) {
    const bool is_first = request.target.find("cursor") == std::string::npos;
    return response(
        200,
        is_first ? cat("Link: <", hub_server_->url("/api/models?cursor=1"), ">; rel=\"next\"\r\n")
                 : std::string(),
        is_first ? R"([{"id":"org/a"}])" : R"([{"id":"org/b"}])");
  });
  EXPECT_EQ(repos("org", ListPart::first_page)->size(), 1U);
  EXPECT_EQ(hub_server_->requests().size(), 1U);
  EXPECT_EQ(repos("org")->size(), 2U);
}

// Any number of pages, each in its time.
TEST_F(HubTest, ALongListMayTakeLongerThanAnAnswer) {
  start([this](const ScriptedRequest& request) {
    std::this_thread::sleep_for(Millis(150));
    const size_t at = request.target.find("cursor=");
    const int page = at == std::string::npos ? 0 : std::stoi(request.target.substr(at + 7));
    return response(200,
                    page == 9 ? std::string()
                              : cat("Link: <", hub_server_->url("/api/x?cursor="), page + 1,
                                    ">; rel=\"next\"\r\n"),
                    cat(R"([{"type":"file","size":5,"path":")", page, R"("}])"));
  });
  Waiter<std::vector<TreeEntry>> waiter;
  hub_->list_tree(kRepo, kCommit, Deadline::after(Millis(1'000)), waiter.done());
  const auto got = waiter.wait();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->size(), 10U);
}

TEST_F(HubTest, AMirrorMayNotServeListings) {
  int status = 0;
  start([&](const auto&) { return response(status, "", "no such page"); });
  for (const int unserved : {404, 405, 501}) {
    status = unserved;
    EXPECT_EQ(repos("org").error().code, Errc::unsupported);
    EXPECT_EQ(resolve("main").error().code, Errc::upstream);
  }
  status = 418;
  EXPECT_EQ(repos("org").error().code, Errc::upstream);
}

// --- Errors --------------------------------------------------------------------------------------

struct ErrorCase {
  int status;
  const char* headers;
  const char* body;
  bool has_token;
  Errc want;
  const char* mentions;
};

class HubErrors : public HubTest, public testing::WithParamInterface<ErrorCase> {};

TEST_P(HubErrors, AreTold) {
  const ErrorCase& test = GetParam();
  start([&](const auto&) { return response(test.status, test.headers, test.body); }, nullptr,
        test.has_token ? kToken : "");
  const auto got = resolve("main");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, test.want) << got.error().message;
  EXPECT_NE(got.error().message.find(test.mentions), std::string::npos) << got.error().message;
  EXPECT_NE(got.error().message.find("org/name"), std::string::npos);
  EXPECT_EQ(got.error().message.find(kToken), std::string::npos);
  EXPECT_EQ(hub_server_->requests().size(), 1U);
  if (test.status >= 400 && test.status != 400) {
    const auto file = read({0, 10});
    ASSERT_FALSE(file.status);
    EXPECT_EQ(file.status.error().code, test.want);
    EXPECT_EQ(file.bytes, "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, HubErrors,
    testing::Values(
        ErrorCase{404, "X-Error-Code: RepoNotFound\r\n", "", true, Errc::not_found, "no such repo"},
        ErrorCase{404, "X-Error-Code: RevisionNotFound\r\n", "", true, Errc::not_found, "branch"},
        ErrorCase{404, "X-Error-Code: EntryNotFound\r\n", "", true, Errc::not_found, "file"},
        ErrorCase{401, "X-Error-Code: GatedRepo\r\n", "", false, Errc::denied, "set a token"},
        ErrorCase{403, "X-Error-Code: GatedRepo\r\n", "", true, Errc::denied, "ask for access"},
        ErrorCase{403, "", R"({"error":"Access to this resource is disabled."})", true,
                  Errc::denied, "disabled"},
        ErrorCase{401, "", "Invalid username or password.", false, Errc::not_found, "private"},
        ErrorCase{401, "", "Invalid username or password.", true, Errc::denied, "token refused"},
        ErrorCase{401, "X-Error-Message: Invalid credentials in Authorization header\r\n", "", true,
                  Errc::denied, "token refused"},
        ErrorCase{401, "X-Error-Message: Invalid credentials in Authorization header\r\n", "",
                  false, Errc::denied, "wants a token"},
        ErrorCase{403, "", R"({"error":"your hf_secret lacks a scope"})", true, Errc::denied,
                  "lacks a scope"},
        ErrorCase{401, "Content-Type: text/html\r\n", "Log in", false, Errc::upstream,
                  "not the hub's"},
        ErrorCase{403, "", " <html>Blocked</html>", true, Errc::upstream, "not the hub's"},
        ErrorCase{403, "X-Error-Code: GatedRepo\r\n", "<html>", true, Errc::denied, "ask for"},
        ErrorCase{410, "X-Error-Message: gone for good\r\n", "", true, Errc::not_found,
                  "gone for good"},
        ErrorCase{451, "", "", true, Errc::denied, "451"},
        // A proxy may have made these: absence must not be believed.
        ErrorCase{404, "", "<html>not found</html>", true, Errc::upstream, "404"},
        ErrorCase{501, "", "", true, Errc::upstream, "501"}));

TEST_F(HubTest, MetadataIsAskedAgainAfterFailures) {
  std::atomic<int> asked = 0;
  start([&](const auto&) -> ScriptedReply {
    switch (asked++) {
      case 0:
        return response(503, "", "");
      case 1:
        return {"", ScriptedReply::Then::reset};
      case 2:
        return response(429, "Retry-After: 0\r\n", "");
      default:
        return response(200, "", cat(R"({"id":"org/name","sha":")", kCommit, "\"}"));
    }
  });
  const SteadyTime began = steady_now();
  EXPECT_TRUE(resolve("main"));
  EXPECT_GE(steady_now() - began, Millis(1'000));  // Retry-After and a second
}

TEST_F(HubTest, LongerWaitThanTheDeadlineIsRateLimitedAtOnce) {
  start([](const auto&) { return response(429, "Retry-After: 100\r\n", ""); });
  const SteadyTime began = steady_now();
  EXPECT_EQ(resolve("main").error().code, Errc::rate_limited);
  EXPECT_LT(steady_now() - began, Millis(5'000));
}

TEST_F(HubTest, WaitingForARetryIsCancelledSoon) {
  start([](const auto&) { return response(429, "Retry-After: 100\r\n", ""); });
  auto token = std::make_shared<CancelToken>();
  Waiter<RevisionInfo> waiter;
  hub_->resolve_revision(kRepo, "main", Deadline::never().with(token), waiter.done());
  ASSERT_TRUE(hub_server_->wait_for_requests(1));
  token->cancel();
  EXPECT_EQ(waiter.wait().error().code, Errc::cancelled);
}

TEST_F(HubTest, ShutDownAnswersAWaitForARetry) {
  start([](const auto&) { return response(429, "Retry-After: 100\r\n", ""); });
  Waiter<RevisionInfo> waiter;
  hub_->resolve_revision(kRepo, "main", Deadline::never(), waiter.done());
  ASSERT_TRUE(hub_server_->wait_for_requests(1));
  hub_.reset();
  http_.reset();
  EXPECT_EQ(waiter.wait().error().code, Errc::cancelled);
}

// --- Bytes ---------------------------------------------------------------------------------------

TEST_F(HubTest, ReadsThroughASignedUrlWithoutTheToken) {
  start([this](const auto&) { return signed_redirect(); },
        [](const ScriptedRequest& request) {
          return range_response(request, kFile, "ETag: \"x\"\r\n");
        });
  expect_read({5, 100});
  expect_read({9'000, 1'000});
  expect_read({0, 10'000});
  ASSERT_EQ(hub_server_->requests().size(), 1U);
  EXPECT_EQ(hub_server_->requests()[0].target, kResolve);
  EXPECT_EQ(hub_server_->requests()[0].header("Authorization"), "Bearer " + kToken);
  for (const ScriptedRequest& request : cdn_->requests())
    EXPECT_EQ(request.header("Authorization"), "");
}

TEST_F(HubTest, ResolvesOnceForManyReadersAtATime) {
  start([this](const auto&) { return signed_redirect(); },
        [](const ScriptedRequest& request) { return range_response(request, kFile); });
  std::vector<std::shared_ptr<Sink>> sinks;
  for (uint64_t i = 0; i < 20; i++) sinks.push_back(begin({i * 500, 500}));
  for (uint64_t i = 0; i < 20; i++) {
    const auto got = sinks[i]->wait();
    EXPECT_TRUE(got.status) << got.status.error().message;
    EXPECT_EQ(got.bytes, kFile.substr(i * 500, 500));
  }
  EXPECT_EQ(hub_server_->requests().size(), 1U);
  EXPECT_EQ(cdn_->requests().size(), 20U);
}

TEST_F(HubTest, ReadsDirectAnswersAndResolveCache) {
  start([](const ScriptedRequest& request) {
    if (request.target == kResolve)
      return response(
          307, cat("Location: /api/resolve-cache/x?etag\r\nX-Repo-Commit: ", kCommit, "\r\n"),
          "Temporary Redirect");
    return range_response(request, kFile, cat("ETag: \"", kSha, "\"\r\n"));
  });
  expect_read({0, 10});
  expect_read({10, 10});
  EXPECT_EQ(hub_server_->count("/org/name/resolve"), 1U);
  for (const ScriptedRequest& request : hub_server_->requests())
    EXPECT_EQ(request.header("Authorization"), "Bearer " + kToken);
}

TEST_F(HubTest, RefreshesARefusedSignedUrlOnce) {
  start([this](const auto&) { return signed_redirect(); },
        [](const ScriptedRequest& request) {
          if (request.target.find("sig=1&") != std::string::npos &&
              request.header("Range") != "bytes=0-9")
            return response(403, "", "Request has expired");
          return range_response(request, kFile);
        });
  expect_read({0, 10});
  expect_read({10, 10});
  expect_read({20, 10});
  EXPECT_EQ(hub_server_->requests().size(), 2U);
}

TEST_F(HubTest, AlwaysRefusedSignedUrlIsUpstream) {
  start([this](const auto&) { return signed_redirect(); },
        [](const auto&) { return response(403, "", "no"); });
  expect_failure({0, 10}, Errc::upstream);
  EXPECT_EQ(hub_server_->requests().size(), 2U);
}

// The hub may have named a host that is broken, and name another by now.
TEST_F(HubTest, AStorageHostThatFailsLosesItsRoute) {
  std::atomic<int> asked = 0;
  start([this](const auto&) { return signed_redirect(); },
        [&](const ScriptedRequest& request) -> ScriptedReply {
          switch (++asked) {
            case 1:
              return response(500, "", "broken");
            case 2:
              return {"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-9/10000\r\n\r\n" +
                          kFile.substr(0, 5),
                      ScriptedReply::Then::close};
            default:
              return range_response(request, kFile);
          }
        });
  for (size_t resolves = 1; resolves <= 2; resolves++) {
    expect_failure({0, 10}, Errc::upstream);
    EXPECT_EQ(hub_server_->requests().size(), resolves);
  }
  expect_read({0, 10});
  expect_read({10, 10});
  EXPECT_EQ(hub_server_->requests().size(), 3U);
}

TEST_F(HubTest, ExpiredSignedUrlIsNotUsedAgain) {
  start([this](const auto&) { return signed_redirect(-5); },
        [](const ScriptedRequest& request) { return range_response(request, kFile); });
  expect_read({0, 10});
  expect_read({10, 10});
  EXPECT_EQ(hub_server_->requests().size(), 2U);
}

TEST_F(HubTest, WholeBodyForARangeIsCountedOff) {
  start([](const auto&) { return response(200, "", kFile); });
  expect_read({0, 100});
  expect_read({5'000, 100});
  expect_read({9'990, 10});
}

TEST_F(HubTest, AWholeBodyOfUnknownLengthIsTakenIfItSaysWhoseItIs) {
  std::string named;
  start([&](const auto&) {
    return ScriptedReply{cat("HTTP/1.1 200 OK\r\n", named, "\r\n", kFile),
                         ScriptedReply::Then::close};
  });
  expect_failure({5'000, 100}, Errc::upstream);  // it could be a login page
  for (const std::string& header : {"ETag: W/\"" + kSha + "\"", "X-Repo-Commit: " + kCommit}) {
    named = header + "\r\n";
    expect_read({5'000, 100});
    expect_read({9'990, 10});
  }
}

TEST_F(HubTest, AServerMayBringLessThanWasAskedFor) {
  start([](const ScriptedRequest& request) {
    const std::string range = request.header("range").substr(strlen("bytes="));
    const uint64_t first = std::stoull(range);
    const uint64_t last =
        std::min<uint64_t>(std::stoull(range.substr(range.find('-') + 1)), first + 39);
    return response(206, cat("Content-Range: Bytes ", first, "-", last, "/*\r\n"),
                    kFile.substr(first, last - first + 1));
  });
  expect_read({100, 100});
  expect_read({9'990, 10});
  EXPECT_EQ(hub_server_->requests().size(), 4U);
}

TEST(HubParse, FindsTheNextPageHoweverItIsWritten) {
  const auto next = [](const std::string& link) {
    return find_next_link({200, {{"link", link}}}).value_or("");
  };
  for (const char* parameters :
       {"; rel=next", ";rel=\"next\"", "; REL=\"Next\"", "; rel = \"next\"", "; rel=\"last next\"",
        "; title=\"a\"; rel=\"next last\"", "; rel=next; title=b",
        "; title=\"a, b\"; rel=\"last next\"", "; title=\"a \\\", b\"; rel=next"})
    EXPECT_EQ(next(cat("<https://h/t?cursor=a,b;c>", parameters)), "https://h/t?cursor=a,b;c")
        << parameters;
  EXPECT_EQ(next("<https://h/1>; rel=prev, <https://h/2>; rel=next"), "https://h/2");
  for (const char* parameters : {"", "; rel=nextone", "; rel=\"prev\"", "; title=next"})
    EXPECT_EQ(next(cat("<https://h/1>", parameters)), "") << parameters;
}

TEST_F(HubTest, LyingBodiesAreUpstream) {
  Script lie;
  start([&](const ScriptedRequest& request) { return lie(request); });
  const std::string part = kFile.substr(100, 50);
  const std::vector<Script> lies{
      // Another length than the file's: bytes cannot be counted off.
      [](const auto&) { return response(200, "", kFile.substr(1)); },
      [](const auto&) -> ScriptedReply {
        return {"HTTP/1.1 200 OK\r\n\r\n" + kFile, ScriptedReply::Then::close};
      },
      [&](const auto&) { return response(206, "", part); },
      [&](const auto&) { return response(206, "Content-Range: bytes 0-49/10000\r\n", part); },
      [&](const auto&) { return response(206, "Content-Range: bytes 100-149/9999\r\n", part); },
      [&](const auto&) { return response(206, "Content-Range: bytes 101-149/10000\r\n", part); },
      [&](const auto&) {
        return response(206, "Content-Range: bytes 100-150/10000\r\n", part + "x");
      },
      [&](const auto&) {
        return response(206, "Content-Range: bytes 100-149/10000\r\n", part + "x");
      },
      [&](const auto&) {
        return response(206, "Content-Range: bytes 100-149/10000\r\nContent-Encoding: gzip\r\n",
                        part);
      },
      [&](const auto&) {
        return response(
            206, cat("Content-Range: bytes 100-149/10000\r\nX-Repo-Commit: ", kOid, "\r\n"), part);
      },
      [&](const auto&) {
        return response(
            206,
            cat("Content-Range: bytes 100-149/10000\r\nETag: \"", std::string(64, 'e'), "\"\r\n"),
            part);
      },
      [](const auto&) { return response(302, "", ""); },
      [](const auto&) { return response(302, "Location: file:///etc/passwd\r\n", ""); },
      [](const auto&) { return response(416, "Content-Range: bytes */5\r\n", ""); },
      [](const auto&) { return response(204, "", ""); },
  };
  for (size_t i = 0; i < lies.size(); i++) {
    SCOPED_TRACE(i);
    lie = lies[i];
    const auto got = read({100, 50});
    ASSERT_FALSE(got.status);
    EXPECT_EQ(got.status.error().code, Errc::upstream) << got.status.error().message;
    EXPECT_EQ(got.bytes, "");
  }
  lie = [](const ScriptedRequest& request) { return range_response(request, kFile); };
  expect_read({100, 50});
}

TEST_F(HubTest, EndlessBodyOfARangeIsCutAtItsEnd) {
  start([](const auto&) -> ScriptedReply {
    return {"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/10000\r\n\r\n" + kFile,
            ScriptedReply::Then::close};
  });
  const auto got = read({0, 10});
  ASSERT_FALSE(got.status);
  EXPECT_LE(got.bytes.size(), 10U);
}

TEST_F(HubTest, ShortBodyKeepsWhatArrived) {
  start([](const auto&) -> ScriptedReply {
    return {cat("HTTP/1.1 206 OK\r\nContent-Length: 100\r\nContent-Range: bytes 0-99/10000\r\n\r\n",
                kFile.substr(0, 60)),
            ScriptedReply::Then::close};
  });
  const auto got = read({0, 100});
  ASSERT_FALSE(got.status);
  EXPECT_EQ(got.status.error().code, Errc::upstream);
  EXPECT_EQ(got.bytes, kFile.substr(0, 60));
}

TEST_F(HubTest, RedirectNamingAnotherFileIsUpstream) {
  start(
      [this](const auto&) {
        ScriptedReply reply = signed_redirect();
        const size_t at = reply.bytes.find(kSha);
        reply.bytes.replace(at, 64, std::string(64, 'e'));
        return reply;
      },
      [](const ScriptedRequest& request) { return range_response(request, kFile); });
  expect_failure({0, 10}, Errc::upstream);
  EXPECT_EQ(cdn_->requests().size(), 0U);
}

TEST_F(HubTest, ChangedEtagIsUpstreamThenAskedAnew) {
  std::atomic<int> asked = 0;
  start([this](const auto&) { return signed_redirect(); },
        [&](const ScriptedRequest& request) {
          return range_response(request, kFile,
                                asked++ == 0 ? "ETag: \"a\"\r\n" : "ETag: \"b\"\r\n");
        });
  expect_read({0, 10});
  expect_failure({10, 10}, Errc::upstream);
  expect_read({10, 10});
  EXPECT_EQ(hub_server_->requests().size(), 2U);
}

TEST_F(HubTest, StalledReadTimesOut) {
  start([](const auto&) -> ScriptedReply {
    return {"HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 0-8/10000\r\n\r\nAB",
            ScriptedReply::Then::stall};
  });
  const auto got = read({0, 9});
  ASSERT_FALSE(got.status);
  EXPECT_EQ(got.status.error().code, Errc::timeout);
}

TEST_F(HubTest, SinkEndsTheTransfer) {
  start([](const ScriptedRequest& request) { return range_response(request, kFile); });
  auto sink = std::make_shared<Sink>(0);
  sink->stop_after = 1;
  hub_->read(address(), {0, 10'000}, true, Deadline::after(kHubPatience), sink);
  const auto got = sink->wait();
  ASSERT_FALSE(got.status);
  EXPECT_EQ(got.status.error().code, Errc::cancelled);
}

// The one who asks the hub for all must not take the others along when it gives up.
TEST_F(HubTest, CancelledLeaderLeavesTheQuestionToTheNext) {
  std::atomic<int> asked = 0;
  start([&](const ScriptedRequest& request) -> ScriptedReply {
    if (asked++ == 0) return {"", ScriptedReply::Then::stall};
    return range_response(request, kFile);
  });
  auto token = std::make_shared<CancelToken>();
  const auto leader = begin({0, 10}, Deadline::never().with(token));
  ASSERT_TRUE(hub_server_->wait_for_requests(1));
  const auto second = begin({10, 10}), third = begin({20, 10});
  token->cancel();
  EXPECT_EQ(leader->wait().status.error().code, Errc::cancelled);
  EXPECT_EQ(second->wait().bytes, kFile.substr(10, 10));
  EXPECT_EQ(third->wait().bytes, kFile.substr(20, 10));
}

TEST_F(HubTest, CancelledFollowerDoesNotWaitForTheLeader) {
  start([](const auto&) -> ScriptedReply { return {"", ScriptedReply::Then::stall}; });
  const auto leader = begin({0, 10});
  ASSERT_TRUE(hub_server_->wait_for_requests(1));
  auto token = std::make_shared<CancelToken>();
  const auto follower = begin({10, 10}, Deadline::never().with(token));
  token->cancel();
  EXPECT_EQ(follower->wait().status.error().code, Errc::cancelled);
  EXPECT_EQ(leader->wait().status.error().code, Errc::timeout);
}

TEST_F(HubTest, RateLimitHoldsBackLaterQuestions) {
  start([](const auto&) { return response(429, "RateLimit: \"resolvers\";r=0;t=60\r\n", ""); });
  expect_failure({0, 10}, Errc::rate_limited);
  expect_failure({10, 10}, Errc::rate_limited);
  EXPECT_EQ(hub_server_->requests().size(), 1U);
}

TEST_F(HubTest, ShutDownEndsReaders) {
  start([](const auto&) -> ScriptedReply { return {"", ScriptedReply::Then::stall}; });
  std::vector<std::shared_ptr<Sink>> sinks;
  for (uint64_t i = 0; i < 20; i++) sinks.push_back(begin({i, 10}, Deadline::never()));
  ASSERT_TRUE(hub_server_->wait_for_requests(1));
  hub_.reset();
  http_.reset();
  for (const auto& sink : sinks) EXPECT_EQ(sink->wait().status.error().code, Errc::cancelled);
}

}  // namespace
}  // namespace cake
