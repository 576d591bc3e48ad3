#include "tests/support/fake_hub.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/http_ask.h"
#include "tests/support/pattern.h"

namespace cake {
namespace {

constexpr uint64_t kFileBytes = 200'000;

class FakeHubTest : public testing::Test {
 protected:
  FakeHubTest() { hub_.add_pattern("org/m", "w.bin", kFileBytes); }
  std::string weights() const { return hub_.url("org/m/resolve/main/w.bin"); }
  Result<HttpAnswer> ask(std::vector<HttpHeader> headers = {}) {
    return asker_.get(weights(), std::move(headers));
  }
  uint16_t port() const { return static_cast<uint16_t>(std::stoi(hub_.url().substr(17))); }
  void expect_whole() {
    const auto answer = ask();
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, as_text(pattern_bytes(kFileBytes)));
  }

  FakeHub hub_;
  Asker asker_;
};

TEST(Pattern, IsTheSameInAnyRange) {
  const Buffer whole = pattern_bytes(5, 0, 1000);
  for (uint64_t offset = 0; offset < 20; offset++)
    for (uint64_t length : {0, 1, 7, 8, 9, 100, 500})
      EXPECT_EQ(pattern_bytes(5, offset, length),
                to_buffer(ByteSpan(whole).subspan(offset, length)));
  EXPECT_NE(pattern_bytes(6, 0, 1000), whole);
}

TEST_F(FakeHubTest, ServesPatternsBeyondAnyMemory) {
  hub_.add_pattern("org/big", "w.bin", 20 * kGiB, 3);
  const uint64_t offset = 15 * kGiB + 12'345;
  const auto part = asker_.get(hub_.url("org/big/resolve/main/w.bin"),
                               {{"Range", cat("bytes=", offset, '-', offset + 99'999)}});
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_EQ(part->body, as_text(pattern_bytes(3, offset, 100'000)));
}

TEST_F(FakeHubTest, ServesPlainFiles) {
  hub_.serve("some/file", pattern_bytes(100));
  const auto part = asker_.get(hub_.url("some/file"), {{"Range", "bytes=10-19"}});
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_EQ(part->body, as_text(pattern_bytes(0, 10, 10)));
  EXPECT_EQ(hub_.counters().requests_by_endpoint["plain"], 1U);
}

TEST_F(FakeHubTest, FailsTheNextRequestsOnly) {
  hub_.set_fault({.count = 2, .status = 503, .headers = {{"Retry-After", "7"}}});
  for (int i = 0; i < 2; i++) {
    const auto answer = ask();
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->head.status, 503);
    EXPECT_EQ(answer->head.find("retry-after"), "7");
  }
  expect_whole();
  EXPECT_EQ(hub_.counters().faults, 2U);
}

TEST_F(FakeHubTest, FailsWhereItIsTold) {
  hub_.set_fault({.endpoint = "tree", .status = 500});
  hub_.set_fault({.path = "*.json", .status = 502});
  hub_.add("org/m", "a.json", {});
  EXPECT_EQ(asker_.status(hub_.url("api/models/org/m/tree/main")), 500);
  EXPECT_EQ(asker_.status(hub_.url("org/m/resolve/main/a.json")), 502);
  expect_whole();
  const uint64_t id = hub_.set_fault({.status = 504});
  EXPECT_EQ(asker_.status(weights()), 504);
  hub_.clear_fault(id);
  expect_whole();
}

TEST_F(FakeHubTest, FailsWithAProbability) {
  hub_.set_fault({.probability = 0.5, .status = 500});
  int failed = 0;
  for (int i = 0; i < 100; i++) failed += asker_.status(hub_.url("api/models/org/m")) == 500;
  EXPECT_GT(failed, 20);  // the seed is fixed
  EXPECT_LT(failed, 80);
}

TEST_F(FakeHubTest, BreaksConnections) {
  using Kind = Fault::Kind;
  for (const Kind kind : {Kind::drop, Kind::reset, Kind::cut_body, Kind::reset_body}) {
    hub_.set_fault({.kind = kind, .count = 1, .after_bytes = 1000});
    // A client of its own: libcurl asks again when a kept connection closes without a byte.
    Asker fresh;
    EXPECT_FALSE(fresh.get(weights()));
    expect_whole();
  }
}

TEST_F(FakeHubTest, CutsAtTheByte) {
  hub_.set_fault({.kind = Fault::Kind::cut_body, .after_bytes = 12'345});
  RawConnection peer(port());
  peer.send("GET /org/m/resolve/main/w.bin HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string answer = peer.read_until("");
  EXPECT_EQ(answer.substr(answer.find("\r\n\r\n") + 4), as_text(pattern_bytes(12'345)));
}

TEST_F(FakeHubTest, Lies) {
  using Kind = Fault::Kind;
  const auto with = [&](Kind kind, std::vector<HttpHeader> headers = {}) {
    hub_.set_fault({.kind = kind, .count = 1, .after_bytes = 100, .location = "http://x.invalid/"});
    const auto answer = ask(std::move(headers));
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? *answer : HttpAnswer{};
  };
  const HttpHeader range{"Range", "bytes=0-999"};
  EXPECT_EQ(with(Kind::ignore_range, {range}).body.size(), kFileBytes);
  EXPECT_EQ(with(Kind::wrong_content_range, {range}).head.find("content-range"),
            cat("bytes 1-1000/", kFileBytes));
  Buffer flipped = pattern_bytes(1000);
  flipped[100] ^= std::byte{0x20};
  EXPECT_EQ(with(Kind::wrong_bytes, {range}).body, as_text(flipped));
  EXPECT_EQ(with(Kind::wrong_length, {range}).body.size(), 999U);
  const auto honest = ask();
  ASSERT_TRUE(honest);
  EXPECT_NE(with(Kind::changed_etag).head.find("etag"), honest->head.find("etag"));
  EXPECT_EQ(with(Kind::redirect_loop).head.find("location"), "/org/m/resolve/main/w.bin");
  EXPECT_EQ(with(Kind::redirect_elsewhere).head.find("location"), "http://x.invalid/");
}

TEST_F(FakeHubTest, SendsGzipThatIsGzip) {
  hub_.add("org/m", "t", to_buffer(as_bytes("hello")));
  hub_.set_fault({.kind = Fault::Kind::gzip});
  RawConnection peer(port());
  peer.send("GET /org/m/resolve/main/t HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const std::string answer = peer.read_until("");
  EXPECT_NE(answer.find("Content-Encoding: gzip\r\n"), std::string::npos);
  // printf hello | gzip -n ends with the CRC-32 3610a686 and the length, little-endian.
  EXPECT_TRUE(answer.ends_with(std::string("hello\x86\xa6\x10\x36\x05\x00\x00\x00", 13)));
}

TEST_F(FakeHubTest, HoldsAnswersUntilReleased) {
  hub_.set_fault({.kind = Fault::Kind::black_hole, .count = 1});
  RawConnection peer(port());
  peer.send("GET /org/m/resolve/main/w.bin HTTP/1.1\r\nHost: h\r\n\r\n");
  while (hub_.stalled() < 1) std::this_thread::yield();
  expect_whole();  // others go on
  hub_.release_stalled();
  EXPECT_NE(peer.read_until("\r\n\r\n").find("200 OK"), std::string::npos);
  EXPECT_EQ(hub_.stalled(), 0U);
}

TEST_F(FakeHubTest, HoldsAThousandStalledBodies) {
  constexpr size_t kPeers = 1000;
  hub_.set_fault({.kind = Fault::Kind::stall_body, .count = kPeers, .after_bytes = 1000});
  std::vector<std::unique_ptr<RawConnection>> peers;
  for (size_t i = 0; i < kPeers; i++) {
    peers.push_back(std::make_unique<RawConnection>(port()));
    peers.back()->send(
        "GET /org/m/resolve/main/w.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  }
  const SteadyTime late = steady_now() + Millis(60'000);
  while (hub_.stalled() < kPeers && steady_now() < late) std::this_thread::yield();
  EXPECT_EQ(hub_.stalled(), kPeers);
  expect_whole();
  hub_.release_stalled();
  for (const auto& peer : peers) {
    const std::string answer = peer->read_until("");
    ASSERT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, kFileBytes);
  }
  EXPECT_EQ(hub_.stalled(), 0U);
}

TEST_F(FakeHubTest, KeepsToItsRates) {
  const auto seconds = [&] {
    const SteadyTime start = steady_now();
    expect_whole();
    return std::chrono::duration<double>(steady_now() - start).count();
  };
  // What goes at once at the start is taken off; above, only a lower bound can be promised.
  hub_.set_rates(0, 400'000);
  EXPECT_GT(seconds(), 0.4);
  hub_.set_rates(400'000, 0);
  EXPECT_GT(seconds(), 0.4);
  hub_.set_rates(0, 0);
  hub_.set_latency(Millis(100));
  EXPECT_GT(seconds(), 0.099);
}

TEST_F(FakeHubTest, RefusesConnectionsWhenNotListening) {
  hub_.stop_listening();
  const auto refused = ask();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::offline);
  hub_.start_listening();
  expect_whole();
}

TEST_F(FakeHubTest, RefusesTokensAtTheCdn) {
  hub_.set_shape(FakeShape::cdn);
  const auto first = ask();
  ASSERT_TRUE(first);
  const std::string location(first->head.find("location"));
  EXPECT_EQ(asker_.status(location), 200);
  EXPECT_EQ(asker_.status(location, {{"Authorization", "Bearer t"}}), 400);
  EXPECT_EQ(hub_.counters().authorization_at_cdn, 1U);
}

TEST_F(FakeHubTest, ExpiresSignedUrls) {
  hub_.set_shape(FakeShape::cdn);
  const auto location = [&] {
    const auto answer = ask();
    return answer ? std::string(answer->head.find("location")) : "";
  };
  const std::string first = location();
  EXPECT_EQ(asker_.status(first), 200);
  EXPECT_EQ(asker_.status(first + "x"), 403);
  hub_.expire_urls();
  EXPECT_EQ(asker_.status(first), 403);
  EXPECT_EQ(asker_.status(location()), 200);
  hub_.set_url_lifetime(Millis(0));
  EXPECT_EQ(asker_.status(location()), 403);
}

TEST_F(FakeHubTest, Counts) {
  expect_whole();
  EXPECT_EQ(asker_.status(hub_.url("api/models/org/m/tree/main")), 200);
  FakeHubCounters counters = hub_.counters();
  EXPECT_EQ(counters.requests, 2U);
  EXPECT_EQ(counters.requests_by_endpoint["resolve"], 1U);
  EXPECT_EQ(counters.requests_by_endpoint["tree"], 1U);
  EXPECT_EQ(counters.bytes_by_endpoint["resolve"], kFileBytes);
  EXPECT_EQ(counters.bytes_by_path["/org/m/resolve/main/w.bin"], kFileBytes);
  EXPECT_EQ(counters.connections, 1U);
  hub_.reset_counters();
  EXPECT_EQ(hub_.counters().requests, 0U);
  EXPECT_EQ(hub_.counters().connections, 0U);
}

TEST_F(FakeHubTest, IsControlledByUrls) {
  const auto control = [&](const std::string& query) {
    const auto answer = asker_.get(hub_.url("_control?" + query));
    EXPECT_TRUE(answer) << query;
    EXPECT_TRUE(answer && answer->head.status == 200) << query;
    return answer ? nlohmann::json::parse(answer->body, nullptr, false) : nlohmann::json();
  };
  EXPECT_TRUE(is_commit(std::string(control("repo=a/b&file=t&text=hi")["commit"])));
  EXPECT_EQ(asker_.get(hub_.url("a/b/resolve/main/t"))->body, "hi");
  const auto id = control("fault=status&status=429&retry_after=3&path=*/t&count=5")["fault_id"];
  EXPECT_EQ(asker_.get(hub_.url("a/b/resolve/main/t"))->head.find("retry-after"), "3");
  control(cat("clear_fault=", id.get<int>()));
  EXPECT_EQ(asker_.status(hub_.url("a/b/resolve/main/t")), 200);
  EXPECT_EQ(control("counters=1")["counters"]["requests"], 3);
  control("repo=a/b&access=gated");
  EXPECT_EQ(asker_.status(hub_.url("a/b/resolve/main/t")), 401);
  EXPECT_EQ(asker_.status(hub_.url("_control?fault=nonsense")), 400);
  EXPECT_EQ(asker_.status(hub_.url("_control?rate=fast")), 400);
}

}  // namespace
}  // namespace cake
