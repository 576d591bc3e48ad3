// Every fault of the test hub against every kind of question, over sockets: a hard reader gets the
// right bytes in the end, a soft one an error that says what is wrong, nobody a wrong byte.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <future>
#include <thread>

#include "fetch/client.h"
#include "fetch/hub.h"
#include "tests/support/fake_hub.h"
#include "tests/support/names.h"
#include "tests/support/pattern.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

constexpr uint64_t kWeatherBytes = 3 * kMiB + 77;
constexpr uint64_t kSeed = 11;
constexpr Millis kPatience{120'000};  // how long a busy machine may take; never waited for in vain
const std::string kToken = "hf_weather";

std::string whole(uint64_t bytes = kWeatherBytes) {
  return std::string(as_text(pattern_bytes(kSeed, 0, bytes)));
}

struct Row {
  const char* name;
  Fault fault;
  // What a soft reader may be told when the fault stays.
  std::vector<Errc> soft;
  const char* soft_endpoint = "cdn";
};

Fault fault_of(Fault::Kind kind) {
  return {.kind = kind};
}
Fault body_fault(Fault::Kind kind, uint64_t after_bytes) {
  return {.kind = kind, .after_bytes = after_bytes};
}
Fault status_fault(int status, std::vector<HttpHeader> headers = {}) {
  return {.kind = Fault::Kind::status, .status = status, .headers = std::move(headers)};
}

std::vector<Row> rows() {
  using Kind = Fault::Kind;
  Fault slow = fault_of(Kind::slow_headers);
  slow.delay = Millis(5'000);
  return {
      {"drop", fault_of(Kind::drop), {Errc::upstream}},
      {"reset", fault_of(Kind::reset), {Errc::upstream}},
      {"black_hole", fault_of(Kind::black_hole), {Errc::timeout}},
      {"slow_headers", slow, {Errc::timeout}},
      {"cut_body", body_fault(Kind::cut_body, 50), {Errc::upstream}},
      {"reset_body", body_fault(Kind::reset_body, 50), {Errc::upstream}},
      {"stall_body", body_fault(Kind::stall_body, 50), {Errc::timeout}},
      {"status_429", status_fault(429), {Errc::rate_limited}},
      {"status_429_retry_after",
       status_fault(429, {{"Retry-After", "0"}}),
       {Errc::rate_limited, Errc::timeout}},
      {"status_500", status_fault(500), {Errc::upstream}},
      {"status_502", status_fault(502), {Errc::upstream}},
      {"status_503", status_fault(503), {Errc::upstream}},
      {"status_504", status_fault(504), {Errc::upstream}},
      {"ignore_range", fault_of(Kind::ignore_range), {}},  // right, only slower
      {"wrong_content_range", fault_of(Kind::wrong_content_range), {Errc::upstream}},
      {"wrong_length", fault_of(Kind::wrong_length), {Errc::upstream}},
      // Of a storage host the first tag seen counts, whatever it is; the hub's is the file's name.
      {"changed_etag", fault_of(Kind::changed_etag), {Errc::upstream}, "resolve"},
      {"redirect_loop", fault_of(Kind::redirect_loop), {Errc::upstream}},
      {"gzip", fault_of(Kind::gzip), {Errc::upstream}},
  };
}

// A process's worth of client over a fresh store.
class Host {
 public:
  // `is_hasty`: the weather is silence, so that a test waits for the time that this takes; else a
  // busy machine must not be taken for it.
  Host(const std::string& endpoint, bool is_hard, bool is_hasty = true,
       HttpOptions http_options = {})
      : fixture_(directory_.path()) {
    http_options.threads = 1;
    http_options.stall_timeout = is_hasty ? Millis(300) : kPatience;
    http_options.connect_timeout = Millis(2'000);
    http_ = std::make_unique<HttpClient>(http_options, metrics_);
    HubOptions hub;
    hub.endpoint = *parse_endpoint(endpoint);
    hub.backoff = {Millis(10), Millis(100)};
    const auto environment = [](const char* name) -> std::optional<std::string> {
      return std::string_view(name) == "HF_TOKEN" ? std::optional(kToken) : std::nullopt;
    };
    ClientOptions options;
    options.fetch.is_hard = is_hard;
    options.fetch.retrans = 1;
    options.fetch.timeo = is_hasty ? Millis(3'000) : kPatience;
    client_ = std::make_unique<Client>(
        fixture_.store(), hub_source(hub.endpoint),
        std::make_unique<HubUpstream>(
            *http_, hub, std::make_shared<const Credentials>("", environment), metrics_),
        options, metrics_);
  }
  ~Host() {
    client_->stop();
    http_.reset();
    client_.reset();
  }

  Result<Client::SnapshotPtr> find(const RepoName& repo = kRepo, Millis patience = kPatience) {
    return wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
      client_->find_snapshot(repo, "main", false, Deadline::after(patience), std::move(done));
    });
  }
  std::shared_ptr<FileReader> open(const std::string& path) {
    const Client::SnapshotPtr snapshot = must(find());
    const auto entry = snapshot->find_entry(path);
    CAKE_CHECK(entry.has_value());
    return must(client_->open(snapshot->content_id(*entry)));
  }
  std::optional<std::string> last_error(const std::string& path) {
    return open(path)->last_error();
  }
  Result<std::string> read(const std::string& path, uint64_t offset = 0,
                           uint64_t length = UINT64_MAX / 2) {
    const auto reader = open(path);
    const auto slices = wait_for<FileReader::Slices>(
        [&](Done<FileReader::Slices> done) { reader->read(offset, length, {}, std::move(done)); });
    if (!slices) return slices.error();
    std::string text;
    for (const ChunkSlice& slice : *slices) text += as_text(slice.bytes());
    return text;
  }

 private:
  TempDir directory_;
  Metrics metrics_;
  StoreFixture fixture_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<Client> client_;
};

class Weather : public testing::TestWithParam<Row> {
 protected:
  Weather() : hub_({.shape = FakeShape::hub}) {
    hub_.add_pattern("org/name", "w.bin", kWeatherBytes, kSeed);
    hub_.add("org/name", "config.json", to_buffer(as_bytes(whole(5'000))));
    hub_.add_token(kToken, {"*"});
  }
  ~Weather() override { EXPECT_EQ(hub_.counters().authorization_at_cdn, 0U); }

  // The fault at all questions of that kind, or at the next one: then twice, if libcurl would hide
  // it, which asks again on a kept connection.
  void disturb(const std::string& endpoint) { set_fault(endpoint, UINT64_MAX); }
  void disturb_next(const std::string& endpoint) {
    const Fault::Kind kind = GetParam().fault.kind;
    set_fault(endpoint, kind == Fault::Kind::drop || kind == Fault::Kind::reset ? 2 : 1);
  }
  void set_fault(const std::string& endpoint, uint64_t count) {
    Fault fault = GetParam().fault;
    fault.endpoint = endpoint;
    fault.count = count;
    hub_.set_fault(fault);
  }
  static bool is_silence() {
    const auto& soft = GetParam().soft;
    return std::find(soft.begin(), soft.end(), Errc::timeout) != soft.end();
  }
  void expect_soft_error(const Error& error) {
    const auto& allowed = GetParam().soft;
    EXPECT_NE(std::find(allowed.begin(), allowed.end(), error.code), allowed.end())
        << errc_name(error.code) << ": " << error.message;
    EXPECT_EQ(error.message.find(kToken), std::string::npos);
    EXPECT_EQ(error.message.find("Signature"), std::string::npos) << error.message;
  }

  FakeHub hub_;
};

TEST_P(Weather, HardReadsAreRightInTheEnd) {
  for (const char* endpoint : {"cdn", "resolve"}) {
    SCOPED_TRACE(endpoint);
    Host host(hub_.url(), true, is_silence());
    must(host.find());
    disturb_next(endpoint);
    EXPECT_EQ(must(host.read("w.bin")), whole());
    hub_.clear_faults();
    hub_.release_stalled();
  }
  Host host(hub_.url(), true, is_silence());
  must(host.find());
  disturb_next("resolve-cache");
  EXPECT_EQ(must(host.read("config.json")), whole(5'000));
  EXPECT_GT(hub_.counters().faults, 0U);
}

TEST_P(Weather, SoftReadsFailClearly) {
  Host host(hub_.url(), false, is_silence());
  must(host.find());
  disturb(GetParam().soft_endpoint);
  const Result<std::string> got = host.read("w.bin");
  if (GetParam().soft.empty()) {
    EXPECT_EQ(must(got), whole());
    return;
  }
  ASSERT_FALSE(got);
  expect_soft_error(got.error());
  EXPECT_NE(got.error().message.find("w.bin bytes"), std::string::npos) << got.error().message;
}

TEST_P(Weather, NamesAreFoundInTheEnd) {
  for (const char* endpoint : {"info", "tree"}) {
    SCOPED_TRACE(endpoint);
    Host host(hub_.url(), false, is_silence());
    disturb_next(endpoint);
    EXPECT_EQ(must(host.find())->entries().size(), 2U);
    hub_.clear_faults();
    hub_.release_stalled();
  }
}

TEST_P(Weather, NamesOfABrokenHubAreAnError) {
  using Kind = Fault::Kind;
  // Metadata has no ranges, no ETag, and may be encoded by who likes.
  const Kind kind = GetParam().fault.kind;
  if (kind == Kind::ignore_range || kind == Kind::wrong_content_range || kind == Kind::changed_etag)
    return;
  Host host(hub_.url(), true);
  disturb("info");
  const auto got = host.find(kRepo, Millis(300));
  ASSERT_FALSE(got);
  EXPECT_NE(got.error().code, Errc::not_found) << got.error().message;
  EXPECT_NE(got.error().message.find("org/name"), std::string::npos) << got.error().message;
}

// --- What is no fault of the hub's ---------------------------------------------------------------

class Outside : public testing::Test {
 protected:
  Outside() : hub_({.shape = FakeShape::hub}) {
    hub_.add_pattern("org/name", "w.bin", kWeatherBytes, kSeed);
    hub_.add_token(kToken, {"*"});
  }
  FakeHub hub_;
};

TEST_F(Outside, AHardReaderOutlivesAHubThatIsDown) {
  Host host(hub_.url(), true);
  must(host.find());
  hub_.stop_listening();
  auto read = std::async(std::launch::async, [&] { return host.read("w.bin"); });
  const SteadyTime began = steady_now();
  while (!host.last_error("w.bin") && steady_now() - began < kPatience) std::this_thread::yield();
  const std::string why = host.last_error("w.bin").value_or("");
  EXPECT_NE(why.find("127.0.0.1"), std::string::npos) << why;
  EXPECT_NE(why.find("check network"), std::string::npos) << why;
  hub_.start_listening();
  EXPECT_EQ(must(read.get()), whole());
}

TEST_F(Outside, ASoftReaderIsToldThatTheHubIsDown) {
  Host host(hub_.url(), false);
  must(host.find());
  hub_.stop_listening();
  const auto got = host.read("w.bin");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::offline) << got.error().message;
}

TEST_F(Outside, ExpiredUrlsAreRenewedBetweenTwoReads) {
  hub_.add_pattern("org/name", "v.bin", kWeatherBytes, kSeed);
  Host host(hub_.url(), false);
  EXPECT_EQ(must(host.read("w.bin", 0, kMiB)), whole(kMiB));
  hub_.expire_urls();
  EXPECT_EQ(must(host.read("w.bin", kMiB, kWeatherBytes - kMiB)), whole().substr(kMiB));
}

// --- Servers that send the whole file for any range ---

class IgnoredRanges : public testing::Test {
 protected:
  static constexpr uint64_t kBytes = 48 * kMiB;
  IgnoredRanges() : hub_({.shape = FakeShape::hub}) {
    hub_.add_pattern("org/name", "s.bin", kBytes, kSeed);
  }
  // From the storage host.
  uint64_t bytes_sent() const {
    const std::map<std::string, uint64_t> bytes = hub_.counters().bytes_by_endpoint;
    const auto found = bytes.find("cdn");
    return found == bytes.end() ? 0 : found->second;
  }
  // All of the file, by `threads` that each take every such mebibyte, the last one first.
  static void read_backwards(Host& host, uint64_t threads) {
    std::vector<std::future<void>> readers;
    for (uint64_t thread = 0; thread < threads; thread++)
      readers.push_back(std::async(std::launch::async, [&host, thread, threads] {
        for (uint64_t i = kBytes / kMiB; i-- > 0;) {
          if (i % threads != thread) continue;
          const Buffer expected = pattern_bytes(kSeed, i * kMiB, kMiB);
          EXPECT_TRUE(must(host.read("s.bin", i * kMiB, kMiB)) == as_text(expected)) << i;
        }
      }));
    for (auto& reader : readers) reader.get();
  }
  FakeHub hub_;
};

TEST_F(IgnoredRanges, AFileComesInOneStream) {
  Host host(hub_.url(), true, false);
  must(host.find());
  hub_.set_fault({.kind = Fault::Kind::ignore_range, .endpoint = "cdn"});
  read_backwards(host, 6);
  // Ranges that were under way when the first was answered had their sockets filled.
  EXPECT_LT(bytes_sent(), 3 * kBytes);
}

TEST_F(IgnoredRanges, AStreamThatNobodyNeedsMoreOfEnds) {
  hub_.add_pattern("org/name", "large.bin", 512 * kMiB, kSeed);
  Host host(hub_.url(), true, false);
  must(host.find());
  hub_.set_fault({.kind = Fault::Kind::ignore_range, .endpoint = "cdn"});
  for (const uint64_t at : {5 * kMiB, 7 * kMiB}) {
    const Buffer expected = pattern_bytes(kSeed, at, kMiB);
    EXPECT_TRUE(must(host.read("large.bin", at, kMiB)) == as_text(expected));
  }
  EXPECT_LT(bytes_sent(), 128 * kMiB);
}

TEST_F(IgnoredRanges, NowAndThenIsNoReasonToStream) {
  Host host(hub_.url(), true, false);
  must(host.find());
  hub_.set_fault({.kind = Fault::Kind::ignore_range, .endpoint = "cdn", .probability = 0.1});
  read_backwards(host, 6);
  EXPECT_LT(bytes_sent(), 2 * kBytes);
}

TEST_F(Outside, NoTokenLeavesForAnotherHost) {
  FakeHub other;
  Host host(hub_.url(), false);
  must(host.find());
  hub_.set_fault({.kind = Fault::Kind::redirect_elsewhere,
                  .endpoint = "resolve",
                  .location = other.cdn_url() + "/elsewhere"});
  EXPECT_FALSE(host.read("w.bin"));
  EXPECT_GT(other.counters().requests, 0U);
  EXPECT_EQ(other.counters().authorization_at_cdn, 0U);
}

TEST_F(Outside, AStorageHostThatIsGoneIsLeftForAnother) {
  Host host(hub_.url(), true);
  must(host.find());
  // The first signed URL names a host that refuses; the hub is asked again.
  hub_.set_fault({.kind = Fault::Kind::redirect_elsewhere,
                  .endpoint = "resolve",
                  .count = 1,
                  .location = "http://127.0.0.1:1/gone"});
  EXPECT_EQ(must(host.read("w.bin")), whole());
}

TEST_F(Outside, AStorageHostIsGivenTheTimeItAsksFor) {
  Host host(hub_.url(), true);
  must(host.find());
  hub_.set_fault({.kind = Fault::Kind::status,
                  .endpoint = "cdn",
                  .count = 1,
                  .status = 503,
                  .headers = {{"Retry-After", "1"}}});
  const SteadyTime began = steady_now();
  EXPECT_EQ(must(host.read("w.bin")), whole());
  EXPECT_GE(steady_now() - began, Millis(2'000));  // and a second for clocks that tick apart
}

TEST_F(Outside, UnknownNamesOfHostsAreOffline) {
  Host host("http://no-such-host.invalid", false);
  const auto got = host.find(kRepo, Millis(300));
  ASSERT_FALSE(got);
  EXPECT_TRUE(got.error().code == Errc::offline || got.error().code == Errc::timeout);
}

TEST_F(Outside, AProxyThatIsDownIsOffline) {
  HttpOptions options;
  options.proxy = "http://127.0.0.1:1";
  Host host(hub_.url(), false, true, options);
  // Long enough for one attempt on a busy machine; then it is the attempt's error.
  const auto got = host.find(kRepo, Millis(3'000));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::offline);
  EXPECT_NE(got.error().message.find("proxy"), std::string::npos) << got.error().message;
  EXPECT_EQ(hub_.counters().requests, 0U);
}

// `openssl s_server` on a free port with a certificate of its own for 127.0.0.1.
class TlsServer {
 public:
  TlsServer() {
    const std::string make = cat(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=t "
        "-addext subjectAltName=IP:127.0.0.1 -keyout ",
        directory_ / "key", " -out ", certificate(), " 2>/dev/null");
    CAKE_CHECK(std::system(make.c_str()) == 0);
    int out[2];
    CAKE_CHECK(::pipe(out) == 0);
    process_ = ::fork();
    CAKE_CHECK(process_ >= 0);
    if (process_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      ::execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert",
               certificate().c_str(), "-key", (directory_ / "key").c_str(), nullptr);
      ::_exit(127);
    }
    ::close(out[1]);
    output_ = ::fdopen(out[0], "r");
    constexpr std::string_view kReady = "ACCEPT 127.0.0.1:";
    char line[256];
    while (port_ == 0 && std::fgets(line, sizeof line, output_) != nullptr)
      if (std::string_view(line).starts_with(kReady)) port_ = std::atoi(line + kReady.size());
  }
  ~TlsServer() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    std::fclose(output_);
  }
  std::string url() const { return cat("https://127.0.0.1:", port_); }
  std::string certificate() const { return directory_ / "certificate"; }
  bool is_up() const { return port_ != 0; }

 private:
  TempDir directory_;
  pid_t process_ = -1;
  FILE* output_ = nullptr;
  int port_ = 0;
};

// Asking again would not make it trusted: an error at once, that says what to do.
TEST(Tls, ACertificateThatIsNotTrustedFailsAtOnce) {
  const TlsServer server;
  ASSERT_TRUE(server.is_up());
  Host host(server.url(), true);
  const auto got = host.find();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::denied) << got.error().message;
  EXPECT_NE(got.error().message.find("SSL_CERT_FILE"), std::string::npos) << got.error().message;
}

TEST(Tls, ACertificateOfTheCaFileIsTrusted) {
  const TlsServer server;
  ASSERT_TRUE(server.is_up());
  Metrics metrics;
  HttpOptions options;
  options.ca_file = server.certificate();
  HttpClient http(options, metrics);
  HttpRequest request;
  request.url = server.url() + "/";
  const auto got = wait_for<HttpAnswer>(
      [&](Done<HttpAnswer> done) { http_get(http, request, kMiB, std::move(done)); });
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->head.status, 200);
}

INSTANTIATE_TEST_SUITE_P(All, Weather, testing::ValuesIn(rows()),
                         [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace cake
