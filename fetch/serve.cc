#include "fetch/serve.h"

#include <csignal>
#include <cstdlib>
#include <thread>

#include "fetch/hub_folder.h"
#include "fetch/hub_server.h"
#include "store/base/log.h"

namespace cake {

namespace {

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

}  // namespace

Status run_serve(const ServeOptions& options,
                 std::function<void(const std::string& url)> on_ready) {
  const BlockedSignals signals;
  HubFolderOptions folder;
  folder.directory = options.directory;
  folder.lfs_threshold_bytes = options.lfs_threshold_bytes;
  folder.hash_cache_file =
      options.hash_cache_file.empty() ? default_hash_cache() : options.hash_cache_file;
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  folder.threads = std::max(2U, cores / 2);
  const std::unique_ptr<HubFolder> content = CAKE_TRY(HubFolder::open(std::move(folder)));
  const HubServer hub(*content, {});
  HttpServerOptions http;
  http.listen = options.listen;
  http.threads = options.threads > 0 ? options.threads : std::max(2U, cores / 2);
  http.max_conns = options.max_conns;
  http.max_conns_per_ip = options.max_conns_per_ip;
  const auto server = CAKE_TRY(HttpServer::start(
      std::move(http), [&hub](const HttpServerRequest& request, HttpResponder responder) {
        hub.handle(request, [responder](HttpServerResponse response) {
          responder.send(std::move(response));
        });
      }));
  on_ready("http://" + server->address());
  signals.wait();
  return {};
}

}  // namespace cake
