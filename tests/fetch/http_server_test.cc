#include "fetch/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "tests/support/http_ask.h"
#include "tests/support/pattern.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

std::unique_ptr<HttpServer> serve(HttpServer::Handler handler, HttpServerOptions options = {}) {
  auto server = HttpServer::start(std::move(options), std::move(handler));
  if (!server) ADD_FAILURE() << server.error().message;
  return std::move(*server);
}
std::string url(const HttpServer& server, const std::string& path = "/") {
  return "http://" + server.address() + path;
}

TEST(HttpServer, GivesTheHandlerTheRequestAsSent) {
  std::promise<HttpServerRequest> seen;
  const auto server = serve([&](const HttpServerRequest& request, HttpResponder responder) {
    seen.set_value(request);
    responder.send({.status = 201, .headers = {{"X-Two", "b"}}, .body = "body"});
  });
  Asker asker;
  const auto answer = asker.get(url(*server, "/a%2Fb/c?d=%20&e"), {{"X-One", "a"}});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->head.status, 201);
  EXPECT_EQ(answer->head.find("x-two"), "b");
  EXPECT_EQ(answer->body, "body");
  const HttpServerRequest request = seen.get_future().get();
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.path, "/a%2Fb/c");
  EXPECT_EQ(request.query, "d=%20&e");
  EXPECT_EQ(request.find("x-one"), "a");
  EXPECT_EQ(request.peer, "127.0.0.1");
}

TEST(HttpServer, KeepsTheConnection) {
  const auto server = serve([](const HttpServerRequest&, const HttpResponder& responder) {
    responder.send({.body = "x"});
  });
  Asker asker;
  for (int i = 0; i < 3; i++) EXPECT_EQ(asker.status(url(*server)), 200);
  EXPECT_EQ(server->accepted(), 1U);
}

TEST(HttpServer, TakesABodyUpToItsLimit) {
  const auto server =
      serve([](const HttpServerRequest& request,
               const HttpResponder& responder) { responder.send({.body = request.body}); },
            {.max_body_bytes = 10});
  RawConnection small(server->port());
  small.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789");
  EXPECT_NE(small.read_until("0123456789").find("200 OK"), std::string::npos);
  RawConnection large(server->port());
  large.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n01234567890");
  EXPECT_NE(large.read_until("\r\n\r\n").find(" 413 "), std::string::npos);
  RawConnection chunked(server->port());
  chunked.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
  chunked.send("b\r\n01234567890\r\n0\r\n\r\n");
  EXPECT_TRUE(chunked.is_closed_by_peer());
}

TEST(HttpServer, RefusesHeadersBeyondItsLimit) {
  const auto server =
      serve([](const HttpServerRequest&, const HttpResponder& responder) { responder.send({}); },
            {.max_header_bytes = 4096});
  RawConnection peer(server->port());
  peer.send("GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + std::string(8192, 'x') + "\r\n\r\n");
  const std::string answer = peer.read_until("\r\n\r\n");
  EXPECT_EQ(answer.find(" 200 "), std::string::npos);
  EXPECT_TRUE(peer.is_closed_by_peer());
}

TEST(HttpServer, SendsARangeOfAFile) {
  const TempDir directory;
  const std::string path = directory / "f";
  const Buffer bytes = pattern_bytes(3 * kMiB + 5);
  ASSERT_TRUE(write_file_atomically(path, bytes));
  const auto server = serve([&](const HttpServerRequest&, const HttpResponder& responder) {
    auto file = File::open(path, File::Mode::read);
    responder.send({.status = 206, .body = FileBody{std::move(*file), {kMiB + 1, kMiB}}});
  });
  Asker asker;
  for (int i = 0; i < 2; i++) {
    const auto answer = asker.get(url(*server));
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, as_text(pattern_bytes(0, kMiB + 1, kMiB)));
  }
}

TEST(HttpServer, StreamsWithAndWithoutALength) {
  constexpr uint64_t kBytes = 5 * kMiB + 3;
  const auto server = serve([](const HttpServerRequest& request, const HttpResponder& responder) {
    const auto source = [](uint64_t offset, MutableByteSpan out) {
      const size_t count = std::min<uint64_t>(out.size(), kBytes - offset);
      fill_pattern(7, offset, out.first(count));
      return BodyStep{.count = count};
    };
    const bool has_length = request.path == "/known";
    responder.send(
        {.body = StreamBody{source, has_length ? std::optional(uint64_t{kBytes}) : std::nullopt}});
  });
  Asker asker;
  for (const char* path : {"/known", "/unknown"}) {
    const auto answer = asker.get(url(*server, path));
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, as_text(pattern_bytes(7, 0, kBytes))) << path;
  }
}

TEST(HttpServer, AnswersLaterFromAnotherThread) {
  std::promise<HttpResponder> asked;
  const auto server = serve([&](const HttpServerRequest&, HttpResponder responder) {
    asked.set_value(std::move(responder));
  });
  std::thread other([&] { asked.get_future().get().send({.body = "late"}); });
  Asker asker;
  const auto answer = asker.get(url(*server));
  other.join();
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->body, "late");
}

TEST(HttpServer, AnswersAForgottenRequestWith500) {
  const auto server = serve([](const HttpServerRequest&, const HttpResponder&) {});
  Asker asker;
  EXPECT_EQ(asker.status(url(*server)), 500);
}

TEST(HttpServer, DropsAndResetsConnections) {
  const auto server = serve([](const HttpServerRequest& request, const HttpResponder& responder) {
    responder.drop(request.path == "/reset");
  });
  Asker asker;
  for (const char* path : {"/drop", "/reset"}) EXPECT_EQ(asker.status(url(*server, path)), -1);
}

TEST(HttpServer, CutsABody) {
  const auto server = serve([](const HttpServerRequest& request, const HttpResponder& responder) {
    const bool is_reset = request.path == "/reset";
    const auto source = [is_reset](uint64_t offset, MutableByteSpan out) -> BodyStep {
      if (offset >= 1000) return {.kind = is_reset ? BodyStep::Kind::reset : BodyStep::Kind::cut};
      return {.count = std::min<size_t>(out.size(), 1000)};
    };
    responder.send({.body = StreamBody{source, 2000}});
  });
  Asker asker;
  for (const char* path : {"/cut", "/reset"}) EXPECT_EQ(asker.status(url(*server, path)), -1);
}

TEST(HttpServer, AsksAWaitingBodyAgainInTimeAndWhenWoken) {
  std::atomic<int> asked{0};
  std::atomic<bool> may_end{false};
  const auto server = serve([&](const HttpServerRequest&, const HttpResponder& responder) {
    const auto source = [&](uint64_t offset, MutableByteSpan out) -> BodyStep {
      if (offset == 0) {
        out[0] = std::byte{'a'};
        return {.count = 1};
      }
      if (++asked == 1) return {.kind = BodyStep::Kind::wait, .until = steady_now() + Millis(5)};
      if (!may_end) return {.kind = BodyStep::Kind::wait};
      out[0] = std::byte{'b'};
      return {.count = 1};
    };
    responder.send({.body = StreamBody{source, 2}});
  });
  RawConnection peer(server->port());
  peer.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(peer.read_until("\r\n\r\na").ends_with("a"));
  while (asked < 2) std::this_thread::yield();  // by time
  may_end = true;
  server->wake();
  EXPECT_EQ(peer.read_until("b"), "b");
}

// A client that sends a byte now and then keeps the library's own idle timer from firing.
TEST(HttpServer, ClosesAClientThatNeverEndsItsRequest) {
  const auto server =
      serve([](const HttpServerRequest&, const HttpResponder& responder) { responder.send({}); },
            {.request_timeout = Millis(300)});
  RawConnection peer(server->port());
  const SteadyTime late = steady_now() + Millis(20'000);
  bool is_open = peer.send("GET / HTTP/1.1\r\nHost: h\r\n");
  while (is_open && steady_now() < late) {
    is_open = peer.send("X: y\r\n");
    std::this_thread::sleep_for(Millis(20));  // the pace of a slow client, not a wait for us
  }
  EXPECT_FALSE(is_open);
}

TEST(HttpServer, LeavesAnAnswerUnderWayAlone) {
  std::promise<HttpResponder> asked;
  const auto server = serve([&](const HttpServerRequest&,
                                HttpResponder responder) { asked.set_value(std::move(responder)); },
                            {.request_timeout = Millis(400)});
  RawConnection peer(server->port());
  peer.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  HttpResponder responder = asked.get_future().get();
  std::promise<void> later;
  server->after(Millis(1'000), [&] { later.set_value(); });
  later.get_future().get();
  responder.send({.body = "fine"});
  EXPECT_TRUE(peer.read_until("fine").ends_with("fine"));
  EXPECT_TRUE(peer.is_closed_by_peer());  // now it is idle
}

TEST(HttpServer, LimitsConnectionsOfOneAddress) {
  const auto server =
      serve([](const HttpServerRequest&, const HttpResponder& responder) { responder.send({}); },
            {.threads = 1, .max_conns_per_ip = 2});
  RawConnection first(server->port()), second(server->port());
  for (RawConnection* peer : {&first, &second}) {
    peer->send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_NE(peer->read_until("\r\n\r\n").find("200 OK"), std::string::npos);
  }
  RawConnection third(server->port());
  third.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(third.read_until("\r\n\r\n"), "");
}

TEST(HttpServer, EndsWithAnswersAndBodiesUnderWay) {
  std::vector<HttpResponder> kept;
  Mutex mutex;
  std::atomic<int> begun{0};
  auto server = serve([&](const HttpServerRequest& request, const HttpResponder& responder) {
    if (request.path == "/later") {
      MutexLock lock(mutex);
      kept.push_back(responder);
    } else {
      responder.send({.body = StreamBody{[](uint64_t, MutableByteSpan) {
                                           return BodyStep{.kind = BodyStep::Kind::wait};
                                         },
                                         10}});
    }
    begun++;
  });
  RawConnection later(server->port()), stalled(server->port()), idle(server->port());
  later.send("GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
  stalled.send("GET /stalled HTTP/1.1\r\nHost: h\r\n\r\n");
  while (begun < 2) std::this_thread::yield();
  server.reset();
  for (RawConnection* peer : {&later, &stalled, &idle}) EXPECT_TRUE(peer->is_closed_by_peer());
  MutexLock lock(mutex);
  for (const HttpResponder& responder : kept) responder.send({.body = "too late"});
}

TEST(HttpServer, ListensWhereItIsTold) {
  const auto handler = [](const HttpServerRequest&, const HttpResponder& responder) {
    responder.send({});
  };
  for (const char* bad : {"", "localhost", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:8x",
                          "::1:80", "no such host:80"}) {
    const auto server = HttpServer::start({.listen = bad}, handler);
    ASSERT_FALSE(server) << bad;
    EXPECT_EQ(server.error().code, Errc::invalid) << bad;
  }
  const auto server = serve(handler);
  EXPECT_NE(server->port(), 0);
  const auto taken = HttpServer::start({.listen = server->address()}, handler);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, Errc::io);
  EXPECT_NE(taken.error().message.find("in use"), std::string::npos) << taken.error().message;
}

TEST(HttpServer, ListensOnIpv6) {
  const auto server = HttpServer::start(
      {.listen = "[::1]:0"}, [](const HttpServerRequest& request, const HttpResponder& responder) {
        responder.send({.body = request.peer});
      });
  if (!server) GTEST_SKIP() << "no IPv6 here: " << server.error().message;
  EXPECT_EQ((*server)->address(), cat("[::1]:", (*server)->port()));
  Asker asker;
  const auto answer = asker.get(url(**server));
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->body, "::1");
}

TEST(HttpServer, ReadsRanges) {
  const auto range = [](std::string_view header, uint64_t bytes) -> std::string {
    const auto got = parse_range_header(header, bytes);
    if (!got) return "416";
    return *got ? cat((*got)->offset, '+', (*got)->length) : "all";
  };
  EXPECT_EQ(range("", 10), "all");
  EXPECT_EQ(range("bytes=0-0", 10), "0+1");
  EXPECT_EQ(range("bytes=3-", 10), "3+7");
  EXPECT_EQ(range("bytes=3-99", 10), "3+7");
  EXPECT_EQ(range("bytes=3-18446744073709551615", 10), "3+7");
  EXPECT_EQ(range("bytes=-4", 10), "6+4");
  EXPECT_EQ(range("bytes=-40", 10), "0+10");
  EXPECT_EQ(range("bytes=-0", 10), "416");
  EXPECT_EQ(range("bytes=10-", 10), "416");
  EXPECT_EQ(range("bytes=0-", 0), "416");
  for (const char* odd : {"bytes=4-3", "bytes=0-1,3-4", "lines=0-1", "bytes=", "bytes=-",
                          "bytes=a-b", "bytes=99999999999999999999-", "bytes=1-2x"})
    EXPECT_EQ(range(odd, 10), "all") << odd;
}

TEST(HttpServer, DecodesParts) {
  EXPECT_EQ(decode_uri_part("a%20b%2fc%2F+"), "a b/c/+");
  for (const char* bad : {"%", "%2", "%zz", "a%00b"}) EXPECT_EQ(decode_uri_part(bad), std::nullopt);
  EXPECT_EQ(find_query("a=1&b=x+y%26&c", "b"), "x y&");
  EXPECT_EQ(find_query("a=1&c", "c"), "");
  EXPECT_EQ(find_query("a=1&c", "d"), std::nullopt);
}

}  // namespace
}  // namespace cake
