#include "fetch/chunk_cache.h"

#include <vector>

namespace cake {

ChunkPtr ChunkCache::find(RowId content, uint64_t ordinal) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(Key{content, ordinal});
  if (found == entries_.end()) return nullptr;
  by_age_.splice(by_age_.begin(), by_age_, found->second);
  return found->second->second;
}

void ChunkCache::insert(RowId content, uint64_t ordinal, ChunkPtr chunk) {
  {
    MutexLock lock(mutex_);
    const Key key{content, ordinal};
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      by_age_.splice(by_age_.begin(), by_age_, found->second);
      return;
    }
    by_age_.emplace_front(key, std::move(chunk));
    entries_[key] = by_age_.begin();
  }
  trim();
}

void ChunkCache::erase(RowId content, uint64_t ordinal) {
  ChunkPtr dropped;  // its memory goes back after the lock
  MutexLock lock(mutex_);
  const auto found = entries_.find(Key{content, ordinal});
  if (found == entries_.end()) return;
  dropped = std::move(found->second->second);
  by_age_.erase(found->second);
  entries_.erase(found);
}

void ChunkCache::forget(RowId content) {
  MutexLock lock(mutex_);
  for (auto entry = by_age_.begin(); entry != by_age_.end();) {
    if (entry->first.content != content) {
      ++entry;
      continue;
    }
    entries_.erase(entry->first);
    entry = by_age_.erase(entry);
  }
}

void ChunkCache::trim() {
  std::vector<ChunkPtr> dropped;
  uint64_t freed = 0;
  MutexLock lock(mutex_);
  // What others still hold (queued for the disk, being replied) frees nothing yet: count it as if
  // it did, or one slow disk would empty the cache.
  while (!by_age_.empty() && budget_.used() > budget_.limit() / 4 * 3 + freed) {
    Entry& oldest = by_age_.back();
    freed += oldest.second->size();
    entries_.erase(oldest.first);
    dropped.push_back(std::move(oldest.second));
    by_age_.pop_back();
  }
}

}  // namespace cake
