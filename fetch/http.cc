#include "fetch/http.h"

#include <curl/curl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {
namespace {

// How often deadlines, cancellations and stalls are looked at while something is under way.
constexpr Millis kSweepPeriod{100};
constexpr Millis kIdleWait{60'000};
constexpr size_t kMaxHeaderBytes = 256 * kKiB;
constexpr size_t kMaxHeaders = 1'000;
constexpr long kReceiveBufferBytes = 512 * 1024;  // libcurl's largest
constexpr int kKeptByHeapBytes = 32 << 20;        // of each arena; glibc's largest
// HTTP/2 or not, transfers at the same time have connections of their own: they would share one
// congestion window, or one connection's limit, and multiplexing was no faster (README.md).
constexpr long kStreamsPerConnection = 1;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string default_ca_file() {
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"})
    if (std::string path = environment(name); !path.empty()) return path;
  return "";
}

// libcurl reads all the proxy variables but this one, which a CGI program's client could set
// (httpoxy).  We are no CGI program, and the Python tools honour it.
std::string upper_case_http_proxy() {
  return environment("http_proxy").empty() ? environment("HTTP_PROXY") : "";
}

// What the proxy of a tunnel answers to who must say who they are (RFC 9110, 15.5.8).
constexpr long kProxyAuthentication = 407;

// Each says what an operator can do.  denied: asking again gets the same answer.
Error curl_error(CURLcode code, const char* detail, long proxy_status) {
  const std::string text = detail[0] != '\0' ? detail : curl_easy_strerror(code);
  if (proxy_status == kProxyAuthentication)
    return Error{Errc::denied, "the proxy wants a name and password: put them into its URL"};
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
      return Error{Errc::denied,
                   text +
                       "; the server's certificate is not trusted: name its CA with cafile= or "
                       "SSL_CERT_FILE, or correct the endpoint"};
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return Error{Errc::denied, text + "; correct cafile= or SSL_CERT_FILE"};
    case CURLE_OPERATION_TIMEDOUT:
      return Error{Errc::timeout, text};
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
    case CURLE_PROXY:
      return Error{Errc::offline, text + "; check network, name service, proxy and endpoint"};
    default:
      return Error{Errc::upstream, text};
  }
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char letter) {
    return static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f;
  });
}

// What curl would put on the wire as given, but must not.
Status check_request(const HttpRequest& request) {
  bool is_bad = has_control(request.url) || has_control(request.method);
  for (const HttpHeader& header : request.headers)
    is_bad = is_bad || has_control(header.name) || has_control(header.value) ||
             header.name.empty() || header.name.find(':') != std::string::npos;
  if (is_bad) return Error{Errc::invalid, "control characters in an HTTP request"};
  return {};
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// A dead peer is noticed by the kernel too, so that later streams do not land on its connection.
int set_socket_options(void* user, curl_socket_t socket, curlsocktype) {
  const auto timeout_ms = static_cast<unsigned>(*static_cast<const long*>(user));
  (void)setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
  return CURL_SOCKOPT_OK;  // a kernel without the option still works
}

// With CURLOPT_NOSIGNAL libcurl leaves SIGPIPE alone, and OpenSSL writes to closed connections.
void block_sigpipe() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
using Easy = std::unique_ptr<CURL, EasyDeleter>;
struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, ListDeleter>;

void append_header(List& list, const std::string& name, const std::string& value) {
  // curl's spelling of an empty value is "Name;".
  const std::string line = value.empty() ? name + ";" : name + ": " + value;
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  CAKE_CHECK(longer != nullptr);
  (void)list.release();
  list.reset(longer);
}

}  // namespace

std::string_view HttpResponseHead::find(std::string_view lower_case_name) const {
  for (const HttpHeader& header : headers)
    if (header.name == lower_case_name) return header.value;
  return {};
}

namespace {

// What all workers share.  Constant after construction.
struct Settings {
  HttpOptions options;
  std::string ca_file;
  std::string http_proxy;  // for http URLs, when options.proxy is empty
  long user_timeout_ms;
  unsigned slots;             // transfers under way in one worker
  unsigned background_slots;  // of these, at most so many that nobody waits for
};

struct Counters {
  explicit Counters(Metrics& metrics)
      : requests_sent(metrics.counter("fetch.requests_sent")),
        requests_failed(metrics.counter("fetch.requests_failed")),
        bytes_received(metrics.counter("fetch.bytes_received")) {}
  Counter& requests_sent;
  Counter& requests_failed;
  Counter& bytes_received;
};

struct Pending {
  HttpRequest request;
  HttpHandlers handlers;
};

// One request under way.  Confined to the HTTP thread.
class Transfer {
 public:
  Transfer(Easy easy, Pending pending, const Settings& settings, Counters& counters)
      : easy_(std::move(easy)), pending_(std::move(pending)), counters_(counters) {
    set_basics(settings);
    set_request(settings);
    set_callbacks();
    second_began_ = busy_at_ = steady_now();
  }

  CURL* easy() { return easy_.get(); }
  bool is_demand() const { return pending_.request.is_demand; }

  // The reason to cut the transfer now, if there is one.
  Status check(const HttpOptions& options) {
    if (Status over = pending_.request.deadline.check(); !over)
      return over.error().code == Errc::timeout ? Error{Errc::timeout, waits_for()} : over;
    const SteadyTime now = steady_now();
    if (now - second_began_ < Millis(1'000) && now - busy_at_ < options.stall_timeout) return {};
    // Until there is a connection, its own timeout counts.
    curl_off_t ready_us = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_PRETRANSFER_TIME_T, &ready_us);
    if (ready_us == 0 || second_bytes_ >= std::max<uint64_t>(options.low_speed_bytes, 1))
      busy_at_ = now;
    second_began_ = now;
    second_bytes_ = 0;
    if (now - busy_at_ < options.stall_timeout) return {};
    curl_easy_setopt(easy_.get(), CURLOPT_FORBID_REUSE, 1L);
    return Error{Errc::timeout, waits_for()};
  }

  // What is to be told when it is over.
  std::function<void(Status)> take_on_done() { return std::move(pending_.handlers.on_done); }

  Status status_of(CURLcode code) const {
    if (is_too_large_) return Error{Errc::upstream, "response head is too large"};
    if (is_ended_) return Error{Errc::cancelled, "ended by the reader"};
    if (code != CURLE_OK) {
      long proxy_status = 0;
      curl_easy_getinfo(easy_.get(), CURLINFO_HTTP_CONNECTCODE, &proxy_status);
      return curl_error(code, error_text_.data(), proxy_status);
    }
    if (!is_head_done_) return Error{Errc::upstream, "response without a head"};
    return {};
  }

 private:
  template <typename Value>
  void set(CURLoption option, Value value) {
    const CURLcode code = curl_easy_setopt(easy_.get(), option, value);
    // An option that this libcurl lacks would be silently without effect: TLS checks among them.
    CAKE_CHECK(code == CURLE_OK);
  }

  // What has not happened in time.
  std::string waits_for() {
    curl_off_t resolved_us = 0, connected_us = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
    curl_easy_getinfo(easy_.get(), CURLINFO_PRETRANSFER_TIME_T, &connected_us);
    if (is_head_done_) return "the server sends nothing more";
    if (connected_us != 0) return "the server does not answer";
    if (resolved_us != 0) return "no connection in time; check network, proxy and endpoint";
    return "the name of the host is not found in time; check the name service";
  }

  void set_basics(const Settings& settings) {
    set(CURLOPT_NOSIGNAL, 1L);
    // Else a request given up while its host's name is looked up would hold this thread, and all
    // its transfers, until the resolver has done with a name server that does not answer.
    set(CURLOPT_QUICK_EXIT, 1L);
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_SSL_VERIFYPEER, 1L);
    set(CURLOPT_SSL_VERIFYHOST, 2L);
    set(CURLOPT_TCP_NODELAY, 1L);
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_BUFFERSIZE, kReceiveBufferBytes);
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings.options.connect_timeout.count()));
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    set(CURLOPT_SOCKOPTFUNCTION, &set_socket_options);
    set(CURLOPT_SOCKOPTDATA, const_cast<long*>(&settings.user_timeout_ms));
    set(CURLOPT_ERRORBUFFER, error_text_.data());
    if (!settings.options.user_agent.empty())
      set(CURLOPT_USERAGENT, settings.options.user_agent.c_str());
    if (settings.ca_file.empty()) return;
    // curl's own CA file stays in force beside a CAPATH unless it is taken away.
    std::error_code ignored;
    const bool is_directory = std::filesystem::is_directory(settings.ca_file, ignored);
    set(CURLOPT_CAINFO, is_directory ? nullptr : settings.ca_file.c_str());
    set(CURLOPT_CAPATH, is_directory ? settings.ca_file.c_str() : nullptr);
  }

  void set_request(const Settings& settings) {
    const HttpRequest& request = pending_.request;
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_PATH_AS_IS, 1L);
    set(CURLOPT_STREAM_WEIGHT, request.is_demand ? 256L : 16L);
    if (request.method == "HEAD") {
      set(CURLOPT_NOBODY, 1L);
    } else if (request.method != "GET") {
      set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
    if (!settings.options.proxy.empty()) {
      set(CURLOPT_PROXY, settings.options.proxy.c_str());
    } else if (!settings.http_proxy.empty() && request.url.starts_with("http:")) {
      set(CURLOPT_PROXY, settings.http_proxy.c_str());
    }
    for (const HttpHeader& header : request.headers)
      append_header(headers_, header.name, header.value);
    append_header(headers_, "Accept-Encoding", "identity");
    if (request.range && request.range->length > 0)
      append_header(headers_, "Range",
                    cat("bytes=", request.range->offset, '-', request.range->end() - 1));
    set(CURLOPT_HTTPHEADER, headers_.get());
  }

  void set_callbacks() {
    set(CURLOPT_PRIVATE, static_cast<void*>(this));
    set(CURLOPT_HEADERFUNCTION, &Transfer::header_callback);
    set(CURLOPT_HEADERDATA, static_cast<void*>(this));
    set(CURLOPT_WRITEFUNCTION, &Transfer::body_callback);
    set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  }

  static size_t header_callback(char* data, size_t size, size_t count, void* user) {
    const size_t bytes = size * count;
    const bool goes_on = static_cast<Transfer*>(user)->on_header_line({data, bytes});
    return goes_on ? bytes : 0;
  }

  static size_t body_callback(char* data, size_t size, size_t count, void* user) {
    const size_t bytes = size * count;
    auto& self = *static_cast<Transfer*>(user);
    self.counters_.bytes_received.add(bytes);
    self.second_bytes_ += bytes;
    const HttpHandlers& handlers = self.pending_.handlers;
    if (!handlers.on_body || handlers.on_body(as_bytes({data, bytes}))) return bytes;
    self.is_ended_ = true;
    // Not 0: for an empty piece that would mean success.
    return bytes + 1;
  }

  bool on_header_line(std::string_view line) {
    second_bytes_ += line.size();
    if (is_head_done_) return true;  // trailers
    head_bytes_ += line.size();
    is_too_large_ = head_bytes_ > kMaxHeaderBytes || head_.headers.size() > kMaxHeaders;
    if (is_too_large_) return false;
    if (line.starts_with("HTTP/")) {
      head_ = {};
      return true;
    }
    const std::string_view text = trimmed(line);
    if (text.empty()) return on_head_end();
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) return true;
    HttpHeader header{std::string(text.substr(0, colon)),
                      std::string(trimmed(text.substr(colon + 1)))};
    for (char& letter : header.name)
      if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
    head_.headers.push_back(std::move(header));
    return true;
  }

  bool on_head_end() {
    long status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    head_.status = static_cast<int>(status);
    if (status < 200) return true;  // 1xx: the real head follows
    is_head_done_ = true;
    if (!pending_.handlers.on_head || pending_.handlers.on_head(head_)) return true;
    is_ended_ = true;
    return false;
  }

  Easy easy_;
  List headers_;
  Pending pending_;
  Counters& counters_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  HttpResponseHead head_;
  size_t head_bytes_ = 0;
  bool is_head_done_ = false;
  bool is_too_large_ = false;
  bool is_ended_ = false;  // by a handler
  SteadyTime second_began_, busy_at_;
  uint64_t second_bytes_ = 0;
};

// One thread with one multi handle: its queues, its transfers, its timers.
class Worker {
 public:
  Worker(const Settings& settings, Counters& counters, unsigned number)
      : settings_(settings), counters_(counters), multi_(curl_multi_init()) {
    CAKE_CHECK(multi_ != nullptr);
    curl_multi_setopt(multi_, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_MULTIPLEX));
    curl_multi_setopt(multi_, CURLMOPT_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
    curl_multi_setopt(multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS, static_cast<long>(settings.slots));
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(settings.slots));
    thread_ = std::thread([this, number] {
      name_this_thread(cat("cake-http-", number));
      block_sigpipe();
      run();
    });
  }

  // Joined before.
  ~Worker() { curl_multi_cleanup(multi_); }

  void join() { thread_.join(); }

  // Returns at once; join waits.
  void stop() EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      is_stopping_ = true;
    }
    curl_multi_wakeup(multi_);
  }

  size_t load() const { return load_.load(std::memory_order_relaxed); }

  void start(Pending pending) EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (!is_closed_) {
        load_.fetch_add(1, std::memory_order_relaxed);
        inbox_.push_back(std::move(pending));
        curl_multi_wakeup(multi_);
        return;
      }
    }
    if (pending.handlers.on_done) pending.handlers.on_done(Error{Errc::cancelled, "shutting down"});
  }

  void after(Millis delay, std::function<void()> task) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (is_stopping_) return;
    timers_.emplace(steady_now() + delay, std::move(task));
    curl_multi_wakeup(multi_);
  }

 private:
  void run() EXCLUDES(mutex_) {
    while (take_inbox()) {
      start_queued();
      int running = 0;
      curl_multi_perform(multi_, &running);
      finish_done();
      sweep();
      const SteadyTime next_timer = run_timers();
      start_queued();
      wait(next_timer);
    }
    close();
  }

  // False when it is time to stop.
  bool take_inbox() EXCLUDES(mutex_) {
    std::deque<Pending> arrived;
    bool goes_on = false;
    {
      MutexLock lock(mutex_);
      arrived.swap(inbox_);
      goes_on = !is_stopping_;
    }
    for (Pending& pending : arrived)
      (pending.request.is_demand ? demand_ : background_).push_back(std::move(pending));
    return goes_on;
  }

  void start_queued() {
    while (!demand_.empty() && active_.size() < settings_.slots) start_first(demand_);
    while (!background_.empty() && active_.size() < settings_.slots &&
           active_background_ < settings_.background_slots)
      start_first(background_);
  }

  void start_first(std::deque<Pending>& queue) {
    Pending pending = std::move(queue.front());
    queue.pop_front();
    if (Status status = pending.request.deadline.check(); !status)
      return refuse(std::move(pending), std::move(status));
    Easy easy(curl_easy_init());
    CAKE_CHECK(easy != nullptr);
    auto transfer =
        std::make_unique<Transfer>(std::move(easy), std::move(pending), settings_, counters_);
    CURL* key = transfer->easy();
    if (!transfer->is_demand()) active_background_++;
    counters_.requests_sent.add();
    active_.emplace(key, std::move(transfer));
    CAKE_CHECK(curl_multi_add_handle(multi_, key) == CURLM_OK);
  }

  void refuse(Pending pending, Status status) {
    load_.fetch_sub(1, std::memory_order_relaxed);
    counters_.requests_failed.add();
    if (pending.handlers.on_done) pending.handlers.on_done(std::move(status));
  }

  void finish_done() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      CURL* easy = message->easy_handle;
      end(easy, active_.at(easy)->status_of(message->data.result));
    }
  }

  void end(CURL* easy, Status status) {
    const auto found = active_.find(easy);
    std::unique_ptr<Transfer> transfer = std::move(found->second);
    active_.erase(found);
    if (!transfer->is_demand()) active_background_--;
    load_.fetch_sub(1, std::memory_order_relaxed);
    curl_multi_remove_handle(multi_, easy);
    const auto on_done = transfer->take_on_done();
    transfer.reset();
    if (!status) counters_.requests_failed.add();
    if (on_done) on_done(std::move(status));
  }

  void sweep() {
    const SteadyTime now = steady_now();
    if (now - swept_at_ < kSweepPeriod) return;
    swept_at_ = now;
    std::vector<std::pair<CURL*, Status>> over;
    for (auto& [easy, transfer] : active_)
      if (Status status = transfer->check(settings_.options); !status)
        over.emplace_back(easy, std::move(status));
    for (auto& [easy, status] : over) end(easy, std::move(status));
    sweep_queue(demand_);
    sweep_queue(background_);
  }

  void sweep_queue(std::deque<Pending>& queue) {
    std::deque<Pending> kept;
    queue.swap(kept);
    for (Pending& pending : kept) {
      if (Status status = pending.request.deadline.check(); !status) {
        refuse(std::move(pending), std::move(status));
      } else {
        queue.push_back(std::move(pending));
      }
    }
  }

  // Runs what is due; answers when the next one is.
  SteadyTime run_timers() EXCLUDES(mutex_) {
    while (true) {
      std::function<void()> task;
      {
        MutexLock lock(mutex_);
        if (timers_.empty() || is_stopping_) return SteadyTime::max();
        const auto first = timers_.begin();
        if (first->first > steady_now()) return first->first;
        task = std::move(first->second);
        timers_.erase(first);
      }
      task();
    }
  }

  void wait(SteadyTime next_timer) {
    const bool is_busy = !active_.empty() || !demand_.empty() || !background_.empty();
    Millis patience = is_busy ? kSweepPeriod : kIdleWait;
    if (next_timer != SteadyTime::max()) {
      const auto until = std::chrono::ceil<Millis>(next_timer - steady_now());
      patience = std::clamp(until, Millis(0), patience);
    }
    curl_multi_poll(multi_, nullptr, 0, static_cast<int>(patience.count()), nullptr);
  }

  // Handlers may ask for more while they are told that it is over; that is refused too.
  void close() EXCLUDES(mutex_) {
    const Error over{Errc::cancelled, "shutting down"};
    while (true) {
      while (!active_.empty()) end(active_.begin()->first, over);
      take_inbox();
      for (auto* queue : {&demand_, &background_}) {
        while (!queue->empty()) {
          Pending pending = std::move(queue->front());
          queue->pop_front();
          refuse(std::move(pending), over);
        }
      }
      MutexLock lock(mutex_);
      if (!inbox_.empty()) continue;
      is_closed_ = true;
      break;
    }
    // What a timer's task holds may answer someone when it is destroyed: not under the lock.
    std::multimap<SteadyTime, std::function<void()>> timers;
    {
      MutexLock lock(mutex_);
      timers.swap(timers_);
    }
  }

  // Constant after construction.
  const Settings& settings_;
  Counters& counters_;
  CURLM* const multi_;  // curl_multi_wakeup may be called by anyone, the rest by the thread

  // Confined to the HTTP thread.
  std::deque<Pending> demand_, background_;
  std::map<CURL*, std::unique_ptr<Transfer>> active_;
  size_t active_background_ = 0;
  SteadyTime swept_at_;

  std::atomic<size_t> load_{0};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::deque<Pending> inbox_ GUARDED_BY(mutex_);
  std::multimap<SteadyTime, std::function<void()>> timers_ GUARDED_BY(mutex_);
  bool is_stopping_ GUARDED_BY(mutex_) = false;
  bool is_closed_ GUARDED_BY(mutex_) = false;

  // Constant after construction.  Last, so that it starts with the rest in place.
  std::thread thread_;
};

Settings make_settings(HttpOptions options) {
  if (options.threads == 0) options.threads = 1 + std::thread::hardware_concurrency() / 8;
  // A worker needs two slots, or background work could take the only one.
  const unsigned slots = std::max(2U, options.max_conns / options.threads);
  Settings settings;
  settings.ca_file = options.ca_file.empty() ? default_ca_file() : options.ca_file;
  settings.http_proxy = upper_case_http_proxy();
  settings.user_timeout_ms = static_cast<long>(2 * options.stall_timeout.count());
  settings.slots = slots;
  settings.background_slots = std::max(1U, slots * 3 / 4);
  settings.options = std::move(options);
  return settings;
}

}  // namespace

class HttpClient::Impl {
 public:
  Impl(HttpOptions options, Metrics& metrics)
      : settings_(make_settings(std::move(options))), counters_(metrics) {
    static std::once_flag once;
    std::call_once(once, [] {
      CAKE_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
      // libcurl's receive buffers come and go with each transfer; fresh pages for each would cost
      // more than receiving.
      mallopt(M_MMAP_THRESHOLD, kKeptByHeapBytes);
      mallopt(M_TRIM_THRESHOLD, kKeptByHeapBytes);
    });
    for (unsigned i = 0; i < settings_.options.threads; i++)
      workers_.push_back(std::make_unique<Worker>(settings_, counters_, i));
  }

  ~Impl() {
    // All at once, then the joins: a handler of one may still call into another.
    for (auto& worker : workers_) worker->stop();
    for (auto& worker : workers_) worker->join();
  }

  void start(Pending pending) {
    // The first among equals, so that a quiet client keeps using the same warm connections.
    Worker* best = workers_[0].get();
    for (auto& worker : workers_)
      if (worker->load() < best->load()) best = worker.get();
    best->start(std::move(pending));
  }

  void after(Millis delay, std::function<void()> task) {
    workers_[0]->after(delay, std::move(task));
  }

 private:
  // Constant after construction.
  const Settings settings_;
  Counters counters_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

HttpClient::HttpClient(HttpOptions options, Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(options), metrics)) {}
HttpClient::~HttpClient() = default;

void HttpClient::start(HttpRequest request, HttpHandlers handlers) {
  if (Status status = check_request(request); !status) {
    if (handlers.on_done)
      after(Millis(0), [done = std::move(handlers.on_done), status] { done(status); });
    return;
  }
  impl_->start(Pending{std::move(request), std::move(handlers)});
}

void HttpClient::after(Millis delay, std::function<void()> task) {
  impl_->after(delay, std::move(task));
}

void http_get(HttpClient& http, HttpRequest request, uint64_t limit_bytes,
              std::function<void(Result<HttpAnswer>)> done) {
  struct State {
    HttpAnswer answer;
    bool is_too_large = false;
  };
  auto state = std::make_shared<State>();
  HttpHandlers handlers;
  handlers.on_head = [state](const HttpResponseHead& head) {
    state->answer.head = head;
    return true;
  };
  handlers.on_body = [state, limit_bytes](ByteSpan bytes) {
    state->is_too_large = bytes.size() > limit_bytes - state->answer.body.size();
    if (!state->is_too_large) state->answer.body += as_text(bytes);
    return !state->is_too_large;
  };
  handlers.on_done = [state, limit_bytes, done = std::move(done)](Status status) {
    if (state->is_too_large)
      return done(Error{Errc::upstream, cat("answer is larger than ", limit_bytes, " bytes")});
    if (!status) return done(std::move(status).error());
    done(std::move(state->answer));
  };
  http.start(std::move(request), std::move(handlers));
}

}  // namespace cake
