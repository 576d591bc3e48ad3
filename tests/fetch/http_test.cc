#include "fetch/http.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "fetch/head_patience.h"
#include "tests/support/scripted_server.h"

namespace cake {
namespace {

constexpr Millis kHttpPatience{10'000};

HttpOptions test_options() {
  HttpOptions options;
  options.threads = 1;
  options.max_conns = 8;
  options.user_agent = "cake-test";
  return options;
}

HttpRequest get(std::string url) {
  HttpRequest request;
  request.url = std::move(url);
  request.deadline = Deadline::after(kHttpPatience);
  return request;
}

Result<HttpAnswer> ask(HttpClient& http, HttpRequest request, uint64_t limit = kMiB) {
  auto promise = std::make_shared<std::promise<Result<HttpAnswer>>>();
  auto future = promise->get_future();
  http_get(http, std::move(request), limit,
           [promise](Result<HttpAnswer> answer) { promise->set_value(std::move(answer)); });
  return future.get();
}

Errc code_of(const Result<HttpAnswer>& answer) {
  EXPECT_FALSE(answer);
  return answer ? Errc::io : answer.error().code;
}

TEST(HttpClient, GetsHeadAndBodyAndKeepsTheConnection) {
  ScriptedServer server([](const auto&) { return response(404, "X-Two:  b \r\n", "body"); });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  for (int i = 0; i < 3; i++) {
    const auto got = ask(http, get(server.url("/a%2Fb/../c?d=%20")));
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got->head.status, 404);
    EXPECT_EQ(got->head.find("x-two"), "b");
    EXPECT_EQ(got->body, "body");
  }
  EXPECT_EQ(server.connections(), 1U);
  const auto request = server.requests()[0];
  EXPECT_EQ(request.target, "/a%2Fb/../c?d=%20");
  EXPECT_EQ(request.header("Accept-Encoding"), "identity");
  EXPECT_EQ(request.header("User-Agent"), "cake-test");
  EXPECT_EQ(request.header("Authorization"), "");
  EXPECT_EQ(metrics.counter("fetch.requests_sent").value(), 3U);
  EXPECT_EQ(metrics.counter("fetch.bytes_received").value(), 12U);
}

TEST(HttpClient, SendsRangeAndHeaders) {
  ScriptedServer server([](const auto& request) { return range_response(request, "0123456789"); });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  HttpRequest request = get(server.url("/"));
  request.range = ByteRange{3, 4};
  request.headers = {{"Authorization", "Bearer t"}};
  const auto got = ask(http, std::move(request));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->body, "3456");
  EXPECT_EQ(server.requests()[0].header("Range"), "bytes=3-6");
  EXPECT_EQ(server.requests()[0].header("Authorization"), "Bearer t");
}

TEST(HttpClient, DoesNotFollowRedirectsNorDecode) {
  ScriptedServer server([](const auto&) {
    return response(302, "Location: /elsewhere\r\nContent-Encoding: gzip\r\n", "\x1f\x8bnot gzip");
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  const auto got = ask(http, get(server.url("/")));
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->head.find("location"), "/elsewhere");
  EXPECT_EQ(got->body, "\x1f\x8bnot gzip");
  EXPECT_EQ(server.requests().size(), 1U);
}

TEST(HttpClient, SkipsInterimResponses) {
  ScriptedServer server([](const auto&) {
    ScriptedReply reply = response(200, "X-A: real\r\n", "ok");
    reply.bytes = "HTTP/1.1 103 Early Hints\r\nX-A: early\r\n\r\n" + reply.bytes;
    return reply;
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  const auto got = ask(http, get(server.url("/")));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->head.status, 200);
  EXPECT_EQ(got->head.find("x-a"), "real");
}

TEST(HttpClient, CutBodyIsUpstream) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", ScriptedReply::Then::close};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get(server.url("/")))), Errc::upstream);
}

TEST(HttpClient, ResetConnectionIsUpstream) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", ScriptedReply::Then::reset};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get(server.url("/")))), Errc::upstream);
}

TEST(HttpClient, NonsenseIsUpstream) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"220 smtp.example ready\r\n", ScriptedReply::Then::close};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get(server.url("/")))), Errc::upstream);
}

TEST(HttpClient, EndlessHeadIsUpstream) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    std::string head = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < 20'000; i++) head += "X-Filler: 0123456789\r\n";
    return {head + "\r\n", ScriptedReply::Then::close};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get(server.url("/")))), Errc::upstream);
}

TEST(HttpClient, NobodyListeningIsOffline) {
  std::string url;
  {
    ScriptedServer server([](const auto&) { return response(200, "", ""); });
    url = server.url("/");
  }
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get(url))), Errc::offline);
  EXPECT_EQ(code_of(ask(http, get("http://no-such-host.invalid/"))), Errc::offline);
}

TEST(HttpClient, OtherSchemesAndPlainTextForTlsAreRefused) {
  ScriptedServer server([](const auto&) { return response(200, "", ""); });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get("file:///etc/hostname"))), Errc::upstream);
  EXPECT_EQ(code_of(ask(http, get("ftp://127.0.0.1/"))), Errc::upstream);
  EXPECT_EQ(code_of(ask(http, get("https" + server.url("/").substr(4)))), Errc::upstream);
}

TEST(HttpClient, HeaderInjectionIsRefused) {
  ScriptedServer server([](const auto&) { return response(200, "", ""); });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  HttpRequest request = get(server.url("/"));
  request.headers = {{"X", "a\r\nY: b"}};
  EXPECT_EQ(code_of(ask(http, std::move(request))), Errc::invalid);
  EXPECT_EQ(server.requests().size(), 0U);
}

TEST(HttpClient, BodyBeyondTheLimitIsCorrupt) {
  ScriptedServer server([](const auto&) { return response(200, "", std::string(5'000, 'x')); });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  EXPECT_EQ(code_of(ask(http, get(server.url("/")), 4'999)), Errc::corrupt);
  EXPECT_TRUE(ask(http, get(server.url("/")), 5'000));
}

TEST(HttpClient, StalledBodyTimesOut) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", ScriptedReply::Then::stall};
  });
  Metrics metrics;
  HttpOptions options = test_options();
  options.stall_timeout = Millis(300);
  HttpClient http(options, metrics);
  const SteadyTime began = steady_now();
  EXPECT_EQ(code_of(ask(http, get(server.url("/")))), Errc::timeout);
  EXPECT_LT(steady_now() - began, Millis(3'000));
}

TEST(HeadPatience, DoublesForWhoWasGivenUpOnUntilItAnswersSoon) {
  HeadPatience patience(Millis(100));
  const std::string url = "http://h/file?signature=1", later = "http://h/file?signature=2";
  EXPECT_EQ(patience.of(url), Millis(100));
  // Many at the same time are one.
  for (int i = 0; i < 5; i++) patience.given_up(url, Millis(100));
  EXPECT_EQ(patience.of(later), Millis(200));
  patience.given_up(later, Millis(200));
  EXPECT_EQ(patience.of(url), Millis(300));
  EXPECT_EQ(patience.of("http://h/other"), Millis(100));
  patience.answered(url, Millis(150));
  EXPECT_EQ(patience.of(url), Millis(300));
  patience.answered(url, Millis(50));
  EXPECT_EQ(patience.of(url), Millis(100));
}

TEST(HttpClient, ASlowServerIsHeardOutWhenItIsAskedAgain) {
  ScriptedServer server([](const auto&) {
    std::this_thread::sleep_for(Millis(1'200));
    return response(200, "", "at last");
  });
  Metrics metrics;
  HttpOptions options = test_options();
  options.stall_timeout = Millis(800);
  HttpClient http(options, metrics);
  EXPECT_EQ(code_of(ask(http, get(server.url("/")))), Errc::timeout);
  EXPECT_TRUE(ask(http, get(server.url("/"))));
}

TEST(HttpClient, DeadlineEndsAWaitForTheHead) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"", ScriptedReply::Then::stall};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  HttpRequest request = get(server.url("/"));
  request.deadline = Deadline::after(Millis(200));
  EXPECT_EQ(code_of(ask(http, std::move(request))), Errc::timeout);
}

TEST(HttpClient, CancelEndsATransferSoon) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"", ScriptedReply::Then::stall};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  auto token = std::make_shared<CancelToken>();
  HttpRequest request = get(server.url("/"));
  request.deadline = Deadline::never().with(token);
  auto done = std::async(std::launch::async, [&] { return ask(http, std::move(request)); });
  ASSERT_TRUE(server.wait_for_requests(1));
  const SteadyTime cancelled_at = steady_now();
  token->cancel();
  EXPECT_EQ(code_of(done.get()), Errc::cancelled);
  EXPECT_LT(steady_now() - cancelled_at, Millis(1'000));
}

TEST(HttpClient, HandlerEndsTheTransfer) {
  ScriptedServer server([](const auto&) { return response(200, "", "body"); });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  std::promise<Status> done;
  std::atomic<bool> had_body = false;
  HttpHandlers handlers;
  handlers.on_head = [](const auto&) { return false; };
  handlers.on_body = [&](ByteSpan) { return had_body = true; };
  handlers.on_done = [&](Status status) { done.set_value(std::move(status)); };
  http.start(get(server.url("/")), std::move(handlers));
  const Status status = done.get_future().get();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::cancelled);
  EXPECT_FALSE(had_body);
}

// A stalled origin must not keep a demanded read behind the readahead that it swallowed.
TEST(HttpClient, DemandPassesABacklogOfBackgroundRequests) {
  ScriptedServer server([](const ScriptedRequest& request) -> ScriptedReply {
    if (request.target == "/demand") return response(200, "", "ok");
    return {"", ScriptedReply::Then::stall};
  });
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  for (int i = 0; i < 50; i++) {
    HttpRequest request = get(server.url("/background"));
    request.is_demand = false;
    http.start(std::move(request), {});
  }
  ASSERT_TRUE(server.wait_for_requests(6));
  EXPECT_TRUE(ask(http, get(server.url("/demand"))));
  EXPECT_EQ(server.count("/background"), 6U);  // 3/4 of 8
}

TEST(HttpClient, DestructionCancelsWhatIsUnderWayAndQueued) {
  ScriptedServer server([](const auto&) -> ScriptedReply {
    return {"", ScriptedReply::Then::stall};
  });
  std::atomic<int> cancelled = 0;
  {
    Metrics metrics;
    HttpClient http(test_options(), metrics);
    for (int i = 0; i < 20; i++) {
      HttpHandlers handlers;
      handlers.on_done = [&](Status status) {
        cancelled += !status && status.error().code == Errc::cancelled;
      };
      http.start(get(server.url("/")), std::move(handlers));
    }
    ASSERT_TRUE(server.wait_for_requests(8));
  }
  EXPECT_EQ(cancelled, 20);
}

TEST(HttpClient, TimersRunInOrder) {
  Metrics metrics;
  HttpClient http(test_options(), metrics);
  std::promise<std::string> done;
  std::string order;  // touched by the HTTP thread only
  http.after(Millis(60), [&] { done.set_value(order + "b"); });
  http.after(Millis(20), [&] { order += "a"; });
  EXPECT_EQ(done.get_future().get(), "ab");
}

TEST(HttpClient, ManyRequestsOnSeveralThreads) {
  ScriptedServer server(
      [](const ScriptedRequest& request) { return response(200, "", request.target); });
  Metrics metrics;
  HttpOptions options = test_options();
  options.threads = 3;
  options.max_conns = 12;
  HttpClient http(options, metrics);
  constexpr int kRequests = 500;
  std::atomic<int> right = 0, left = kRequests;
  std::promise<void> all;
  for (int i = 0; i < kRequests; i++) {
    const std::string target = "/" + std::to_string(i);
    http_get(http, get(server.url(target)), kMiB, [&, target](Result<HttpAnswer> answer) {
      right += answer && answer->body == target;
      if (--left == 0) all.set_value();
    });
  }
  all.get_future().get();
  EXPECT_EQ(right, kRequests);
  EXPECT_LE(server.connections(), 14U);
}

}  // namespace
}  // namespace cake
