// Decoded chunks in memory, least recently used first out, within the process's budget.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>

#include "store/base/memory.h"
#include "store/base/mutex.h"
#include "store/index.h"

namespace cake {

// Keyed by (content, ordinal), so that a read needs no digest.  Thread-safe.
class ChunkCache {
 public:
  explicit ChunkCache(MemoryBudget& budget) : budget_(budget) {}

  // nullptr when absent.
  ChunkPtr find(RowId content, uint64_t ordinal) EXCLUDES(mutex_);
  // Then drops the oldest while the budget is more than three quarters used: the rest is for what
  // is in flight.
  void insert(RowId content, uint64_t ordinal, ChunkPtr chunk) EXCLUDES(mutex_);
  void erase(RowId content, uint64_t ordinal) EXCLUDES(mutex_);
  // All of a content.
  void forget(RowId content) EXCLUDES(mutex_);
  void trim() EXCLUDES(mutex_);

 private:
  struct Key {
    RowId content;
    uint64_t ordinal;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return (key.content * 0x9e3779b97f4a7c15ull) ^ (key.ordinal * 0xc2b2ae3d27d4eb4full);
    }
  };
  using Entry = std::pair<Key, ChunkPtr>;

  // Constant after construction.
  MemoryBudget& budget_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::list<Entry> by_age_ GUARDED_BY(mutex_);  // newest first
  std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> entries_ GUARDED_BY(mutex_);
};

}  // namespace cake
