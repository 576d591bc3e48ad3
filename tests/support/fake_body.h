// A response's body on its way through a bad link: slow, cut, stalled, flipped.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "fetch/http_server.h"
#include "store/base/mutex.h"

namespace cake {

// A rate that several bodies may share.  Thread-safe.
class Link {
 public:
  std::atomic<uint64_t> rate{0};  // bytes a second; 0: no limit
  // How many of `wanted` bytes may go now; 0: not before `until`.
  uint64_t take(uint64_t wanted, SteadyTime& until) EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  SteadyTime free_at_ GUARDED_BY(mutex_);  // when all that was granted has gone through
};

struct BodyTrouble {
  std::optional<uint64_t> cut_at, stall_at, flip_at;  // offsets in the body
  bool is_reset = false;                              // the cut is a TCP reset
  bool is_short = false;                              // one byte less than there is
  bool is_gzip = false;
  Link* link = nullptr;
  std::shared_ptr<Link> own_link;
  // A stall lasts until the number of releases changes.
  const std::atomic<uint64_t>* releases = nullptr;
  std::atomic<unsigned>* stalled = nullptr;  // counts those that wait
  std::function<void(uint64_t)> on_sent;
};

HttpBody troubled_body(HttpBody body, const BodyTrouble& trouble);

// "bytes 5-9/20" becomes "bytes 6-10/20".
void shift_content_range(std::vector<HttpHeader>& headers);

}  // namespace cake
