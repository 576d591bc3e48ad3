// Which stored extents to read from disk and decode before they are asked for.  Pure: no I/O, no
// clock.
#pragma once

#include <cstdint>
#include <vector>

#include "store/base/bytes.h"

namespace cake {

// Follows the runs of a file's readers, as Readahead does for what must be fetched, but with a
// short window: the disk answers in a millisecond, and what is decoded lies in memory until it is
// read. A lone touch asks for nothing.  Confined to its owner's lock.
class DecodeAhead {
 public:
  // Of all runs of a file together; a run of its own has at least kLeastWindowBytes.
  static constexpr uint64_t kWindowBytes = 16 * kMiB;
  static constexpr uint64_t kLeastWindowBytes = 2 * kMiB;
  static constexpr size_t kMaxRuns = 32;

  explicit DecodeAhead(uint64_t file_bytes) : file_bytes_(file_bytes) {}

  // A reader asked for [offset, offset + length).  Answers what to decode now; empty when nothing.
  ByteRange on_access(uint64_t offset, uint64_t length);

 private:
  struct Run {
    uint64_t start = 0;
    uint64_t next = 0;      // end of what was read
    uint64_t ahead = 0;     // end of what was asked for
    uint64_t last_use = 0;  // in accesses
  };
  Run& find_or_add(uint64_t offset);
  uint64_t window() const;

  const uint64_t file_bytes_;
  std::vector<Run> runs_;
  uint64_t accesses_ = 0;
};

}  // namespace cake
