#include "fetch/http.h"

#include <malloc.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "fetch/http_transfer.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {
namespace {

// How often deadlines, cancellations and stalls are looked at while something is under way.
constexpr Millis kSweepPeriod{100};
constexpr Millis kIdleWait{60'000};
constexpr int kKeptByHeapBytes = 32 << 20;  // of each arena; glibc's largest
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

// With CURLOPT_NOSIGNAL libcurl leaves SIGPIPE alone, and OpenSSL writes to closed connections.
void block_sigpipe() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

// One thread with one multi handle: its queues, its transfers, its timers.
class Worker {
 public:
  Worker(const HttpSettings& settings, HttpCounters& counters, unsigned number)
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

  void join() {
    if (thread_.joinable()) thread_.join();
  }

  // Returns at once; join waits.
  void stop() EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      is_stopping_ = true;
    }
    curl_multi_wakeup(multi_);
  }

  size_t load() const { return load_.load(std::memory_order_relaxed); }

  void start(HttpPending pending) EXCLUDES(mutex_) {
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
    std::deque<HttpPending> arrived;
    bool goes_on = false;
    {
      MutexLock lock(mutex_);
      arrived.swap(inbox_);
      goes_on = !is_stopping_;
    }
    for (HttpPending& pending : arrived)
      (pending.request.is_demand ? demand_ : background_).push_back(std::move(pending));
    return goes_on;
  }

  void start_queued() {
    while (!demand_.empty() && active_.size() < settings_.slots) start_first(demand_);
    while (!background_.empty() && active_.size() < settings_.slots &&
           active_background_ < settings_.background_slots)
      start_first(background_);
  }

  void start_first(std::deque<HttpPending>& queue) {
    HttpPending pending = std::move(queue.front());
    queue.pop_front();
    if (Status status = pending.request.deadline.check(); !status)
      return refuse(std::move(pending), std::move(status));
    auto transfer = std::make_unique<HttpTransfer>(std::move(pending), settings_, counters_);
    transfer->wait_for_head(settings_.patience->of(transfer->url()));
    CURL* key = transfer->easy();
    if (!transfer->is_demand()) active_background_++;
    counters_.requests_sent.add();
    active_.emplace(key, std::move(transfer));
    CAKE_CHECK(curl_multi_add_handle(multi_, key) == CURLM_OK);
  }

  void refuse(HttpPending pending, Status status) {
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
    std::unique_ptr<HttpTransfer> transfer = std::move(found->second);
    active_.erase(found);
    if (!transfer->is_demand()) active_background_--;
    load_.fetch_sub(1, std::memory_order_relaxed);
    if (const std::optional<Millis> head = transfer->head_time())
      settings_.patience->answered(transfer->url(), *head);
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
      if (Status status = transfer->check(settings_.options); !status) {
        if (transfer->is_silent())
          settings_.patience->given_up(transfer->url(), transfer->head_patience());
        over.emplace_back(easy, std::move(status));
      }
    for (auto& [easy, status] : over) end(easy, std::move(status));
    sweep_queue(demand_);
    sweep_queue(background_);
  }

  void sweep_queue(std::deque<HttpPending>& queue) {
    std::deque<HttpPending> kept;
    queue.swap(kept);
    for (HttpPending& pending : kept) {
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
          HttpPending pending = std::move(queue->front());
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
  const HttpSettings& settings_;
  HttpCounters& counters_;
  CURLM* const multi_;  // curl_multi_wakeup may be called by anyone, the rest by the thread

  // Confined to the HTTP thread.
  std::deque<HttpPending> demand_, background_;
  std::map<CURL*, std::unique_ptr<HttpTransfer>> active_;
  size_t active_background_ = 0;
  SteadyTime swept_at_;

  std::atomic<size_t> load_{0};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::deque<HttpPending> inbox_ GUARDED_BY(mutex_);
  std::multimap<SteadyTime, std::function<void()>> timers_ GUARDED_BY(mutex_);
  bool is_stopping_ GUARDED_BY(mutex_) = false;
  bool is_closed_ GUARDED_BY(mutex_) = false;

  // Constant after construction.  Last, so that it starts with the rest in place.
  std::thread thread_;
};

HttpSettings make_settings(HttpOptions options) {
  if (options.threads == 0) options.threads = 1 + std::thread::hardware_concurrency() / 8;
  // A worker needs two slots, or background work could take the only one.
  const unsigned slots = std::max(2U, options.max_conns / options.threads);
  HttpSettings settings;
  settings.ca_file = options.ca_file.empty() ? default_ca_file() : options.ca_file;
  settings.http_proxy = upper_case_http_proxy();
  settings.user_timeout_ms = static_cast<long>(2 * options.stall_timeout.count());
  settings.slots = slots;
  settings.background_slots = std::max(1U, slots * 3 / 4);
  settings.patience = std::make_unique<HeadPatience>(options.stall_timeout);
  settings.options = std::move(options);
  return settings;
}

}  // namespace

std::string_view HttpResponseHead::find(std::string_view lower_case_name) const {
  for (const HttpHeader& header : headers)
    if (header.name == lower_case_name) return header.value;
  return {};
}

bool HttpResponseHead::is_redirect() const {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

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

  ~Impl() { stop(); }

  void stop() {
    // All at once, then the joins: a handler of one may still call into another.
    for (auto& worker : workers_) worker->stop();
    for (auto& worker : workers_) worker->join();
  }

  void start(HttpPending pending) {
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
  const HttpSettings settings_;
  HttpCounters counters_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

HttpClient::HttpClient(HttpOptions options, Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(options), metrics)) {}
HttpClient::~HttpClient() = default;

void HttpClient::stop() {
  impl_->stop();
}

void HttpClient::start(HttpRequest request, HttpHandlers handlers) {
  if (Status status = check_request(request); !status) {
    if (handlers.on_done)
      after(Millis(0), [done = std::move(handlers.on_done), status] { done(status); });
    return;
  }
  impl_->start(HttpPending{std::move(request), std::move(handlers)});
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
      return done(Error{Errc::corrupt, cat("answer is larger than ", limit_bytes, " bytes")});
    if (!status) return done(std::move(status).error());
    done(std::move(state->answer));
  };
  http.start(std::move(request), std::move(handlers));
}

}  // namespace cake
