// What may be fetched before it is asked for, as the user wants it.
#pragma once

#include <cstdint>

#include "store/base/bytes.h"

namespace cake {

// `prefetch=`: nothing; the tensor being read; on to the next tensor and the next shard while the
// pattern holds; the whole file, or the whole repo, once it is read at all (fetch/prefetcher).
enum class Prefetch { off, tensor, automatic, file, repo };

struct ReadaheadOptions {
  uint64_t max_window_bytes = 128 * kMiB;  // `readahead=`, shared by the streams of a file
  Prefetch prefetch = Prefetch::automatic;
};

}  // namespace cake
