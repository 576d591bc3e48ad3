// A folder of repos served as a hub until a signal comes: what `cake serve` runs.
#pragma once

#include <functional>
#include <string>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cake {

struct ServeOptions {
  std::string directory;
  std::string listen = "127.0.0.1:8080";
  unsigned threads = 0;  // 0: one for two cores, at least two
  unsigned max_conns = 1024;
  unsigned max_conns_per_ip = 0;  // 0: no limit
  uint64_t lfs_threshold_bytes = 10 * kMiB;
  // Where hashes of large files are remembered; empty: in the cache directory of the user.
  std::string hash_cache_file;
};

// Calls `on_ready` with "http://HOST:PORT" once requests are answered, and returns after SIGTERM or
// SIGINT.  Call it before other threads exist: the signals are blocked for those made here.
//
// Errors: not_found, io  the directory cannot be read
//         invalid, io    the address is malformed or taken
Status run_serve(const ServeOptions& options, std::function<void(const std::string& url)> on_ready);

}  // namespace cake
