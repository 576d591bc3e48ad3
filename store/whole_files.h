// What eviction and removal know of files that are kept whole (materialize.h): their chunks lie in
// a file that the kernel may have mapped for readers, so they go with it, and never by themselves.
#pragma once

#include <optional>
#include <vector>

#include "store/index.h"

namespace cake {

// Thread-safe.
class WholeFiles {
 public:
  struct Entry {
    RowId content = 0;
    uint64_t bytes = 0;
    int64_t last_access = 0;  // Unix seconds
  };

  // digest_key of chunks, sorted.
  using Keys = std::vector<uint64_t>;

  virtual ~WholeFiles() = default;
  virtual Result<std::vector<Entry>> list() = 0;
  // Those that evict() would let go while these chunks are kept.
  virtual Result<std::vector<Entry>> list_evictable(const Keys& kept) = 0;
  // Drops the file and its chunks, but for what pinned or open contents share.  Answers the bytes
  // that came free; 0 when it stays: in use, needed, or damaged (which is logged: one bad file
  // keeps no other from going).
  virtual uint64_t evict(RowId content) = 0;
  // For a content whose names go: drops the file and its chunks, but for those of `staying` (for
  // whose copies there may be no room: then they are dropped too) and of pinned or open contents.
  // Answers the bytes that came free; nullopt when it stays: in use, or there is no room.
  virtual Result<std::optional<uint64_t>> remove(RowId content, const Keys& staying) = 0;
  // Closes files that another process has removed, so that their blocks come free.
  virtual void close_removed() = 0;
};

}  // namespace cake
