// A folder of repos, or a store and the hub behind it, served as a hub until a signal comes: what
// `cake serve` runs.
#pragma once

#include <functional>
#include <string>

#include "fetch/client.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/result.h"

namespace cake {

struct ServeOptions {
  // A folder of repos, or
  std::string directory;
  // a store and the hub behind it: called once the signals are blocked, before anything is served.
  // What it answers outlives the call of run_serve.
  std::function<Result<Client*>()> open_client;
  // With open_client.  Ends what the client has under way: it calls nobody back after this.
  std::function<void()> stop_client;
  Millis name_timeout{60'000};  // of the hub behind

  std::string listen = "127.0.0.1:8080";
  unsigned threads = 0;  // 0: one for two cores, at least two
  unsigned max_conns = 1024;
  unsigned max_conns_per_ip = 0;                   // 0: no limit
  std::string tls_certificate_file, tls_key_file;  // PEM; both or neither
  // Only who sends the token in this file is served; empty: everybody.
  std::string token_file;

  uint64_t lfs_threshold_bytes = 10 * kMiB;
  // Where hashes of large files are remembered; empty: in the cache directory of the user.
  std::string hash_cache_file;
};

// Calls `on_ready` with "http://HOST:PORT" (https with a certificate) once requests are answered,
// and returns after SIGTERM or SIGINT.  Call it before other threads exist: the signals are blocked
// for those made here.
//
// Errors: not_found, io  the directory cannot be read
//         invalid, io    the address is malformed or taken; a certificate or token is unusable
Status run_serve(const ServeOptions& options, std::function<void(const std::string& url)> on_ready);

}  // namespace cake
