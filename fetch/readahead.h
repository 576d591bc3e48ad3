// What to fetch before it is asked for.  Pure: no I/O, no clock.
#pragma once

#include <cstdint>
#include <vector>

#include "store/base/bytes.h"

namespace cake {

struct ReadaheadOptions {
  uint64_t max_window_bytes = 128 * kMiB;  // `readahead=`, shared by the streams of a file
  bool is_enabled = true;                  // `prefetch=off`
};

// Follows streams, several per file: loaders read with many threads, each a run of its own, through
// one handle or mapping.  A lone touch asks for nothing.  Confined to its owner's lock.
class Readahead {
 public:
  Readahead(uint64_t file_bytes, ReadaheadOptions options)
      : file_bytes_(file_bytes), options_(options) {}

  // A reader asked for [offset, offset + length).  Answers what to fetch now, at most
  // `limit_bytes` (memory); empty when nothing.
  ByteRange on_access(uint64_t offset, uint64_t length, uint64_t limit_bytes);

 private:
  struct Stream {
    uint64_t start = 0;   // first byte of the run
    uint64_t next = 0;    // end of what was read
    uint64_t ahead = 0;   // end of what was asked for
    uint64_t window = 0;  // bytes to keep ahead of `next`
    uint64_t last_use = 0;
  };
  Stream& find_or_add(uint64_t offset);
  size_t active_streams() const;

  const uint64_t file_bytes_;
  const ReadaheadOptions options_;
  std::vector<Stream> streams_;
  uint64_t accesses_ = 0;
};

}  // namespace cake
