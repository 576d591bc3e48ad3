#include "fetch/serve.h"

#include <csignal>
#include <cstdlib>
#include <thread>

#include "fetch/hub_folder.h"
#include "fetch/hub_mirror.h"
#include "fetch/hub_server.h"
#include "store/base/log.h"

namespace cake {

namespace {

constexpr uint64_t kMaxTokenBytes = 4 * kKiB;
constexpr uint64_t kMaxPemBytes = kMiB;

// Never inside the served directory: what is served is not written to.
std::string default_hash_cache() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::string directory;
  if (cache != nullptr && *cache == '/')
    directory = cat(cache, "/cake");
  else if (home != nullptr && *home == '/')
    directory = cat(home, "/.cache/cake");
  else
    return "";
  if (const Status made = make_directories(directory); !made) {
    log_info("serve: hashes are not remembered: " + made.error().message);
    return "";
  }
  return directory + "/serve-hashes";
}

class BlockedSignals {
 public:
  BlockedSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  void wait() const {
    int number = 0;
    sigwait(&set_, &number);
  }

 private:
  sigset_t set_, before_;
};

// Bodies wait for bytes from elsewhere: those who bring them know the server by this alone, so that
// it can go first.
class Waker {
 public:
  void set(HttpServer* server) {
    MutexLock lock(mutex_);
    server_ = server;
  }
  void wake() {
    MutexLock lock(mutex_);
    if (server_ != nullptr) server_->wake();
  }

 private:
  // Guarded by mutex_.  Before the server's own lock.
  Mutex mutex_;
  HttpServer* server_ GUARDED_BY(mutex_) = nullptr;
};

// As long for a wrong token as for the right one.
bool is_same(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); i++)
    difference |= static_cast<unsigned char>(a[i]) ^
                  static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  return difference == 0;
}

Result<std::string> read_token(const std::string& path) {
  std::string token = CAKE_TRY(read_text_file(path, kMaxTokenBytes));
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
  for (const char letter : token)
    if (letter <= ' ' || letter > '~')
      return Error{Errc::invalid, path + ": a token has no blanks and only ASCII in it"};
  if (token.empty()) return Error{Errc::invalid, path + ": there is no token in it"};
  return token;
}

Result<HubServerOptions> protocol_options(const ServeOptions& options) {
  HubServerOptions protocol;
  protocol.pins_commits = true;
  protocol.is_tls = !options.tls_certificate_file.empty();
  if (options.token_file.empty()) return protocol;
  protocol.is_private = true;
  protocol.access = [token = CAKE_TRY(read_token(options.token_file))](const RepoName&,
                                                                       std::string_view presented) {
    return is_same(presented, token) ? HubAccess::open : HubAccess::bad_token;
  };
  return protocol;
}

Result<HttpServerOptions> http_options(const ServeOptions& options) {
  HttpServerOptions http;
  http.listen = options.listen;
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  http.threads = options.threads > 0 ? options.threads : std::max(2U, cores / 2);
  http.max_conns = options.max_conns;
  http.max_conns_per_ip = options.max_conns_per_ip;
  if (options.tls_certificate_file.empty() != options.tls_key_file.empty())
    return Error{Errc::invalid, "TLS wants a certificate and its key"};
  if (!options.tls_certificate_file.empty()) {
    http.tls_certificate = CAKE_TRY(read_text_file(options.tls_certificate_file, kMaxPemBytes));
    http.tls_key = CAKE_TRY(read_text_file(options.tls_key_file, kMaxPemBytes));
  }
  return http;
}

Result<std::unique_ptr<HubContent>> open_folder(const ServeOptions& options) {
  HubFolderOptions folder;
  folder.directory = options.directory;
  folder.lfs_threshold_bytes = options.lfs_threshold_bytes;
  folder.hash_cache_file =
      options.hash_cache_file.empty() ? default_hash_cache() : options.hash_cache_file;
  folder.threads = std::max(2U, std::thread::hardware_concurrency() / 2);
  return std::unique_ptr<HubContent>(CAKE_TRY(HubFolder::open(std::move(folder))));
}

}  // namespace

Status run_serve(const ServeOptions& options,
                 std::function<void(const std::string& url)> on_ready) {
  const BlockedSignals signals;
  HubServerOptions protocol = CAKE_TRY(protocol_options(options));
  HttpServerOptions http = CAKE_TRY(http_options(options));
  const auto waker = std::make_shared<Waker>();
  std::shared_ptr<HubContent> content;
  if (options.open_client) {
    Client* const client = CAKE_TRY(options.open_client());
    content = std::make_shared<HubMirror>(
        *client, HubMirrorOptions{options.name_timeout, [waker] { waker->wake(); }});
  } else {
    content = CAKE_TRY(open_folder(options));
  }
  const HubServer hub(*content, std::move(protocol));
  const auto server = CAKE_TRY(HttpServer::start(
      std::move(http), [&hub](const HttpServerRequest& request, HttpResponder responder) {
        hub.handle(request, [responder](HttpServerResponse response) {
          responder.send(std::move(response));
        });
      }));
  waker->set(server.get());
  on_ready(cat(options.tls_certificate_file.empty() ? "http://" : "https://", server->address()));
  signals.wait();
  // What is under way at the hub behind ends before those who wait for it.
  if (options.stop_client) options.stop_client();
  waker->set(nullptr);
  return {};
}

}  // namespace cake
