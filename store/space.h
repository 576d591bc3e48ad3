// How much the store may take, and how much it takes: what `du` and `df` say, asked of the disk.
//
// There is no counter that could drift.  Who is about to write takes the blocks first (fallocate)
// while holding the store's space lock, so that what several processes have taken is in `du`
// before anyone decides again, and a killed process leaves nothing to correct.
#pragma once

#include <cstdint>
#include <string>

#include "store/base/clock.h"
#include "store/base/file.h"
#include "store/base/result.h"

namespace cake {

struct SpaceLimits {
  uint64_t cache_bytes = UINT64_MAX;  // the whole directory, index and all
  uint64_t min_free_bytes = 0;        // of the disk
};

// Immutable; the disk is what changes.
class Space {
 public:
  Space(std::string directory, SpaceLimits limits);

  bool is_limited() const { return limits_.cache_bytes != UINT64_MAX || limits_.min_free_bytes; }
  const SpaceLimits& limits() const { return limits_; }
  const std::string& directory() const { return directory_; }
  // Blocks of all files of the store.
  Result<uint64_t> used_bytes() const;
  // What may be added now, by all processes together; below zero is too much already.  A little is
  // kept back for the index and its log, which grow without asking.
  Result<int64_t> room() const;
  // What a writer takes at once.
  uint64_t step_bytes() const { return step_bytes_; }
  // One at a time in the whole store decides what is taken and what goes; held until the File is
  // closed.  timeout: somebody holds it too long.
  Result<File> lock(Deadline deadline) const;

 private:
  const std::string directory_;
  const SpaceLimits limits_;
  const uint64_t step_bytes_;
};

}  // namespace cake
