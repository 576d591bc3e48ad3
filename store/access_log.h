// What was read since the last look: kept in memory, written to the index now and then, so that no
// read of file data waits for SQLite.
#pragma once

#include <unordered_set>
#include <vector>

#include "store/base/mutex.h"
#include "store/index.h"

namespace cake {

// Thread-safe.
class AccessLog {
 public:
  // Beyond these, reads are not noted: an overload costs a guess about what is hot, not memory.
  static constexpr size_t kMaxNotes = 262'144;

  // A chunk was read from the disk.
  void note_chunk(const Digest& digest) EXCLUDES(mutex_);
  // A content was opened; all of it may be read without us (passthrough).
  void note_content(RowId content) EXCLUDES(mutex_);

  struct Notes {
    std::vector<Digest> chunks;
    std::vector<RowId> contents;
    bool is_empty() const { return chunks.empty() && contents.empty(); }
  };
  Notes take() EXCLUDES(mutex_);

 private:
  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::unordered_set<Digest, DigestHash> chunks_ GUARDED_BY(mutex_);
  std::unordered_set<RowId> contents_ GUARDED_BY(mutex_);
};

}  // namespace cake
