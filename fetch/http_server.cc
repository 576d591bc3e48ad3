#include "fetch/http_server.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdarg>
#include <map>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "fetch/listen_socket.h"
#include "store/base/log.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {

namespace {

// What a body source fills at a time; each connection that streams holds one.
constexpr size_t kStreamBlockBytes = 64 * kKiB;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& letter : out)
    letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return out;
}

void log_library(void*, const char* format, va_list arguments) {
  std::array<char, 512> line{};
  if (vsnprintf(line.data(), line.size(), format, arguments) > 0)
    log_debug(cat("http server: ", line.data()));
}

// One connection, for the deadline on requests.
struct Peer {
  int fd = -1;
  SteadyTime ready_since;
  bool has_request = false;  // a whole request is here; the answer is our business
};

}  // namespace

// One request.  `connection` may be used on the library's own threads, or by others while
// `suspended` (a suspended connection is not freed).
struct HttpServerExchange {
  MHD_Connection* connection = nullptr;
  HttpServerRequest request;
  bool has_headers = false, is_handled = false, is_too_large = false;  // library's thread only

  // Guarded by Core::mutex_.
  bool is_suspended = false;
  bool is_answered = false;
  std::optional<HttpServerResponse> response;  // absent after an answer: drop
  bool reset = false;
};

namespace {
using Exchange = HttpServerExchange;
using ExchangePtr = std::shared_ptr<Exchange>;
}  // namespace

struct HttpServer::Core : std::enable_shared_from_this<HttpServer::Core> {
  HttpServerOptions options;
  Handler handler;
  MHD_Daemon* daemon = nullptr;
  uint16_t port = 0;
  std::string address;
  std::thread timer_thread;

  // Guarded by mutex.  The library's own locks are taken inside it, never around it.
  mutable Mutex mutex;
  CondVar timer_wake;
  bool stopping GUARDED_BY(mutex) = false;
  std::unordered_set<ExchangePtr> suspended GUARDED_BY(mutex);
  std::unordered_set<Peer*> peers GUARDED_BY(mutex);
  std::multimap<SteadyTime, std::function<void()>> timers GUARDED_BY(mutex);
  uint64_t wakes GUARDED_BY(mutex) = 0;
  uint64_t accepted GUARDED_BY(mutex) = 0;

  Status listen();
  void stop();
  void run_timers();
  void close_late_peers() EXCLUDES(mutex);
  void suspend(const ExchangePtr& exchange) REQUIRES(mutex);
  void resume(const ExchangePtr& exchange) REQUIRES(mutex);
  void after(Millis delay, std::function<void()> task) EXCLUDES(mutex);
  void answer(const ExchangePtr& exchange, std::optional<HttpServerResponse> response, bool reset)
      EXCLUDES(mutex);

  MHD_Result on_request(const ExchangePtr& exchange, MHD_Connection* connection, const char* method,
                        const char* upload, size_t* upload_bytes);
  MHD_Result reply(MHD_Connection* connection, HttpServerResponse response,
                   const ExchangePtr& exchange);
};

struct HttpResponder::Ticket {
  std::shared_ptr<HttpServer::Core> core;
  ExchangePtr exchange;
  ~Ticket() {
    core->answer(exchange, HttpServerResponse{.status = 500, .body = "No answer was made."}, false);
  }
};

void HttpResponder::send(HttpServerResponse response) const {
  ticket_->core->answer(ticket_->exchange, std::move(response), false);
}
void HttpResponder::drop(bool reset) const {
  ticket_->core->answer(ticket_->exchange, std::nullopt, reset);
}
void HttpResponder::after(Millis delay, std::function<void()> task) const {
  ticket_->core->after(delay, std::move(task));
}

// --- A body that is made as it is sent ------------------------------------------

namespace {
struct Stream {
  std::function<ssize_t(uint64_t, MutableByteSpan)> read;
};
ssize_t read_stream(void* state, uint64_t offset, char* out, size_t limit) {
  return static_cast<Stream*>(state)->read(
      offset, MutableByteSpan(reinterpret_cast<std::byte*>(out), limit));
}
void free_stream(void* state) {
  delete static_cast<Stream*>(state);
}

// The next close of this connection sends RST, not FIN.
void arm_reset(MHD_Connection* connection) {
  const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info == nullptr) return;
  const linger now{.l_onoff = 1, .l_linger = 0};
  if (setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) != 0)
    log_debug("http server: cannot arm a reset");
}
}  // namespace

void HttpServer::Core::suspend(const ExchangePtr& exchange) {
  exchange->is_suspended = true;
  suspended.insert(exchange);
  MHD_suspend_connection(exchange->connection);
}

void HttpServer::Core::resume(const ExchangePtr& exchange) {
  if (!exchange->is_suspended) return;
  exchange->is_suspended = false;
  suspended.erase(exchange);
  MHD_resume_connection(exchange->connection);
}

void HttpServer::Core::answer(const ExchangePtr& exchange,
                              std::optional<HttpServerResponse> response, bool reset) {
  MutexLock lock(mutex);
  if (exchange->is_answered) return;
  exchange->is_answered = true;
  exchange->response = std::move(response);
  exchange->reset = reset;
  resume(exchange);
}

// --- Requests -------------------------------------------------------------------

namespace {

MHD_Result add_header(void* request, MHD_ValueKind, const char* name, const char* value) {
  static_cast<HttpServerRequest*>(request)->headers.push_back(
      {lower(name), value == nullptr ? "" : value});
  return MHD_YES;
}

void* on_uri(void*, const char* uri, MHD_Connection*) {
  auto exchange = std::make_shared<Exchange>();
  const std::string_view text = uri;
  const size_t mark = text.find('?');
  exchange->request.path = text.substr(0, mark);
  if (mark != std::string_view::npos) exchange->request.query = text.substr(mark + 1);
  return new ExchangePtr(std::move(exchange));
}

// The library would decode in place; the routes want segments first, then decode.
size_t leave_encoded(void*, MHD_Connection*, char* text) {
  return std::string_view(text).size();
}

Peer* peer_of(MHD_Connection* connection) {
  const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info == nullptr ? nullptr : static_cast<Peer*>(info->socket_context);
}

void fill_head(HttpServerRequest& request, MHD_Connection* connection, const char* method) {
  request.method = method;
  MHD_get_connection_values(connection, MHD_HEADER_KIND, add_header, &request);
  const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (info == nullptr || info->client_addr == nullptr) return;
  const bool is_v6 = info->client_addr->sa_family == AF_INET6;
  request.peer =
      numeric_address(info->client_addr, is_v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in), false);
}

}  // namespace

MHD_Result HttpServer::Core::on_request(const ExchangePtr& exchange, MHD_Connection* connection,
                                        const char* method, const char* upload,
                                        size_t* upload_bytes) {
  HttpServerRequest& request = exchange->request;
  if (!exchange->has_headers) {
    exchange->has_headers = true;
    exchange->connection = connection;
    fill_head(request, connection, method);
    uint64_t announced = 0;
    const std::string_view length = request.find("content-length");
    std::from_chars(length.data(), length.data() + length.size(), announced);
    if (announced <= options.max_body_bytes) return MHD_YES;
    return reply(connection, {.status = 413, .body = "The request is too large."}, exchange);
  }
  if (*upload_bytes > 0) {
    if (request.body.size() + *upload_bytes > options.max_body_bytes)
      exchange->is_too_large = true;
    else
      request.body.append(upload, *upload_bytes);
    *upload_bytes = 0;
    // What is too large is dropped at once rather than read to its end.
    return exchange->is_too_large ? MHD_NO : MHD_YES;
  }
  if (!exchange->is_handled) {
    exchange->is_handled = true;
    if (Peer* peer = peer_of(connection)) {
      MutexLock lock(mutex);
      peer->has_request = true;
    }
    auto ticket = std::make_shared<HttpResponder::Ticket>();
    ticket->core = shared_from_this();
    ticket->exchange = exchange;
    handler(request, HttpResponder(std::move(ticket)));
  }
  std::optional<HttpServerResponse> response;
  {
    MutexLock lock(mutex);
    if (!exchange->is_answered) {
      if (stopping) return MHD_NO;
      suspend(exchange);
      return MHD_YES;
    }
    response = std::move(exchange->response);
    exchange->response.reset();
    if (!response) {
      if (exchange->reset) arm_reset(connection);
      return MHD_NO;
    }
  }
  return reply(connection, std::move(*response), exchange);
}

MHD_Result HttpServer::Core::reply(MHD_Connection* connection, HttpServerResponse response,
                                   const ExchangePtr& exchange) {
  MHD_Response* out = nullptr;
  if (auto* text = std::get_if<std::string>(&response.body)) {
    out = MHD_create_response_from_buffer(text->size(), text->data(), MHD_RESPMEM_MUST_COPY);
  } else if (auto* file = std::get_if<FileBody>(&response.body)) {
    out = file->range.length == 0
              ? MHD_create_response_from_buffer(0, nullptr, MHD_RESPMEM_PERSISTENT)
              : MHD_create_response_from_fd_at_offset64(file->range.length, file->file.fd(),
                                                        file->range.offset);
    if (out != nullptr && file->range.length > 0) file->file.release();
  } else {
    auto& body = std::get<StreamBody>(response.body);
    auto* stream = new Stream;
    stream->read = [core = this, exchange, connection, source = std::move(body.source)](
                       uint64_t offset, MutableByteSpan span) -> ssize_t {
      while (true) {
        uint64_t wakes_before = 0;
        {
          MutexLock lock(core->mutex);
          if (core->stopping) return MHD_CONTENT_READER_END_WITH_ERROR;
          wakes_before = core->wakes;
        }
        const BodyStep step = source(offset, span);
        switch (step.kind) {
          case BodyStep::Kind::bytes:
            if (step.count == 0) return MHD_CONTENT_READER_END_OF_STREAM;
            return static_cast<ssize_t>(step.count);
          case BodyStep::Kind::reset:
            arm_reset(connection);
            return MHD_CONTENT_READER_END_WITH_ERROR;
          case BodyStep::Kind::cut:
            return MHD_CONTENT_READER_END_WITH_ERROR;
          case BodyStep::Kind::wait:
            break;
        }
        MutexLock lock(core->mutex);
        if (core->stopping) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (core->wakes != wakes_before) continue;  // woken between the question and now
        if (step.until != SteadyTime::max()) {
          core->timers.emplace(step.until,
                               [weak = core->weak_from_this(), waiting = std::weak_ptr(exchange)] {
                                 const auto alive = weak.lock();
                                 const auto there = waiting.lock();
                                 if (!alive || !there) return;
                                 MutexLock relock(alive->mutex);
                                 alive->resume(there);
                               });
          core->timer_wake.notify_one();
        }
        core->suspend(exchange);
        return 0;
      }
    };
    out = MHD_create_response_from_callback(body.bytes.value_or(MHD_SIZE_UNKNOWN),
                                            kStreamBlockBytes, read_stream, stream, free_stream);
    if (out == nullptr) delete stream;
  }
  if (out == nullptr) return MHD_NO;
  for (const HttpHeader& header : response.headers)
    if (MHD_add_response_header(out, header.name.c_str(), header.value.c_str()) != MHD_YES)
      log_warn(cat("http server: header ", header.name, " cannot be sent"));
  const MHD_Result queued =
      MHD_queue_response(connection, static_cast<unsigned>(response.status), out);
  MHD_destroy_response(out);
  return queued;
}

// --- Timers -----------------------------------------------------------------------

void HttpServer::Core::after(Millis delay, std::function<void()> task) {
  MutexLock lock(mutex);
  if (stopping) return;
  timers.emplace(steady_now() + delay, std::move(task));
  timer_wake.notify_one();
}

void HttpServer::Core::close_late_peers() {
  const SteadyTime late = steady_now() - options.request_timeout;
  MutexLock lock(mutex);
  for (const Peer* peer : peers)
    if (!peer->has_request && peer->ready_since < late) ::shutdown(peer->fd, SHUT_RDWR);
}

void HttpServer::Core::run_timers() {
  name_this_thread("http-timer");
  const Millis sweep = std::clamp(options.request_timeout / 4, Millis(10), Millis(1'000));
  SteadyTime next_sweep = steady_now() + sweep;
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mutex);
      if (stopping) return;
      const SteadyTime now = steady_now();
      if (!timers.empty() && timers.begin()->first <= now) {
        task = std::move(timers.begin()->second);
        timers.erase(timers.begin());
      } else if (now < next_sweep) {
        timer_wake.wait_until(
            mutex, timers.empty() ? next_sweep : std::min(next_sweep, timers.begin()->first));
        continue;
      }
    }
    if (task) {
      task();
      continue;
    }
    close_late_peers();
    next_sweep = steady_now() + sweep;
  }
}

// --- Start and stop -----------------------------------------------------------------

namespace {

struct CoreCalls {
  // The library calls these with the core as `cls`.
  template <typename Core>
  static MHD_Result on_request(void* cls, MHD_Connection* connection, const char*,
                               const char* method, const char*, const char* upload,
                               size_t* upload_bytes, void** state) {
    auto* exchange = static_cast<ExchangePtr*>(*state);
    if (exchange == nullptr) return MHD_NO;
    return static_cast<Core*>(cls)->on_request(*exchange, connection, method, upload, upload_bytes);
  }

  template <typename Core>
  static void on_completed(void* cls, MHD_Connection* connection, void** state,
                           MHD_RequestTerminationCode) {
    delete static_cast<ExchangePtr*>(*state);
    *state = nullptr;
    Peer* peer = peer_of(connection);
    if (peer == nullptr) return;
    auto* core = static_cast<Core*>(cls);
    MutexLock lock(core->mutex);
    peer->has_request = false;
    peer->ready_since = steady_now();
  }

  template <typename Core>
  static void on_connection(void* cls, MHD_Connection* connection, void** state,
                            MHD_ConnectionNotificationCode code) {
    auto* core = static_cast<Core*>(cls);
    MutexLock lock(core->mutex);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
      const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
      auto* peer = new Peer{info == nullptr ? -1 : info->connect_fd, steady_now(), false};
      core->peers.insert(peer);
      core->accepted++;
      *state = peer;
    } else if (*state != nullptr) {
      core->peers.erase(static_cast<Peer*>(*state));
      delete static_cast<Peer*>(*state);
      *state = nullptr;
    }
  }
};

}  // namespace

Status HttpServer::Core::listen() {
  const bool is_tls = !options.tls_certificate.empty();
  if (is_tls && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
    return Error{Errc::unsupported, "the HTTP server library was built without TLS"};
  ListenSocket made = CAKE_TRY(listen_on(options.listen));
  port = made.port;
  address = made.address;
  // The limit is split evenly over the threads, and each wants one at least.
  const unsigned threads = std::max(1U, std::min(options.threads, options.max_conns));
  const auto send_seconds = static_cast<unsigned>(
      std::max<int64_t>(1, std::chrono::ceil<std::chrono::seconds>(options.send_timeout).count()));
  unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
  if (is_tls) flags |= MHD_USE_TLS;
  std::vector<MHD_OptionItem> tls;
  if (is_tls) {
    tls.push_back({MHD_OPTION_HTTPS_MEM_CERT, 0, options.tls_certificate.data()});
    tls.push_back({MHD_OPTION_HTTPS_MEM_KEY, 0, options.tls_key.data()});
  }
  tls.push_back({MHD_OPTION_END, 0, nullptr});
  daemon = MHD_start_daemon(
      flags, 0, nullptr, nullptr, CoreCalls::on_request<Core>, this, MHD_OPTION_EXTERNAL_LOGGER,
      log_library, nullptr, MHD_OPTION_LISTEN_SOCKET, made.socket.fd(), MHD_OPTION_THREAD_POOL_SIZE,
      threads > 1 ? threads : 0U, MHD_OPTION_CONNECTION_LIMIT, options.max_conns,
      MHD_OPTION_PER_IP_CONNECTION_LIMIT, options.max_conns_per_ip, MHD_OPTION_CONNECTION_TIMEOUT,
      send_seconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, options.max_header_bytes,
      MHD_OPTION_URI_LOG_CALLBACK, on_uri, nullptr, MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded,
      nullptr, MHD_OPTION_NOTIFY_COMPLETED, CoreCalls::on_completed<Core>, this,
      MHD_OPTION_NOTIFY_CONNECTION, CoreCalls::on_connection<Core>, this, MHD_OPTION_ARRAY,
      tls.data(), MHD_OPTION_END);
  if (daemon == nullptr)
    return Error{is_tls ? Errc::invalid : Errc::io,
                 cat("the HTTP server for ", options.listen, " does not start",
                     is_tls ? ": are certificate and key PEM, and of each other?" : "")};
  made.socket.release();  // the library's now
  timer_thread = std::thread([this] { run_timers(); });
  return {};
}

void HttpServer::Core::stop() {
  {
    MutexLock lock(mutex);
    stopping = true;
    timer_wake.notify_all();
    while (!suspended.empty()) resume(ExchangePtr(*suspended.begin()));
  }
  timer_thread.join();
  MHD_stop_daemon(daemon);
  // Timers hold tasks of others; they go outside the lock.
  std::multimap<SteadyTime, std::function<void()>> left;
  MutexLock lock(mutex);
  left.swap(timers);
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerOptions options, Handler handler) {
  auto core = std::make_shared<Core>();
  core->options = std::move(options);
  core->handler = std::move(handler);
  CAKE_TRY(core->listen());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

HttpServer::~HttpServer() {
  core_->stop();
}

uint16_t HttpServer::port() const {
  return core_->port;
}
std::string HttpServer::address() const {
  return core_->address;
}

void HttpServer::wake() {
  MutexLock lock(core_->mutex);
  core_->wakes++;
  std::vector<ExchangePtr> waiting;
  for (const ExchangePtr& exchange : core_->suspended)
    if (exchange->is_answered) waiting.push_back(exchange);  // the others wait for an answer
  for (const ExchangePtr& exchange : waiting) core_->resume(exchange);
}

void HttpServer::after(Millis delay, std::function<void()> task) {
  core_->after(delay, std::move(task));
}

uint64_t HttpServer::accepted() const {
  MutexLock lock(core_->mutex);
  return core_->accepted;
}
unsigned HttpServer::open_connections() const {
  MutexLock lock(core_->mutex);
  return static_cast<unsigned>(core_->peers.size());
}

// --- Values -----------------------------------------------------------------------

std::string_view HttpServerRequest::find(std::string_view lower_name) const {
  for (const HttpHeader& header : headers)
    if (header.name == lower_name) return header.value;
  return {};
}

uint64_t body_bytes(const HttpBody& body) {
  if (const auto* text = std::get_if<std::string>(&body)) return text->size();
  if (const auto* file = std::get_if<FileBody>(&body)) return file->range.length;
  return std::get<StreamBody>(body).bytes.value_or(0);
}

}  // namespace cake
