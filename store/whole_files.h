// What eviction and removal know of files that are kept whole (materialize.h): their chunks lie in
// a file that the kernel may have mapped for readers, so they go with it, and never by themselves.
#pragma once

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

  virtual ~WholeFiles() = default;
  virtual Result<std::vector<Entry>> list() = 0;
  // Drops the file and its chunks; answers the bytes that came free, 0 when it is in use.
  virtual Result<uint64_t> evict(RowId content) = 0;
  // Moves its chunks into ordinary packs, and drops it; false when it is in use.
  virtual Result<bool> unmaterialize(RowId content) = 0;
};

}  // namespace cake
