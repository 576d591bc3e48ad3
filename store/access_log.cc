#include "store/access_log.h"

#include <utility>

namespace cake {

void AccessLog::note_chunk(const Digest& digest) {
  MutexLock lock(mutex_);
  if (chunks_.size() < kMaxNotes) chunks_.insert(digest);
}

void AccessLog::note_content(RowId content) {
  MutexLock lock(mutex_);
  if (contents_.size() < kMaxNotes) contents_.insert(content);
}

AccessLog::Notes AccessLog::take() {
  std::unordered_set<Digest, DigestHash> chunks;
  std::unordered_set<RowId> contents;
  {
    MutexLock lock(mutex_);
    chunks.swap(chunks_);
    contents.swap(contents_);
  }
  return {{chunks.begin(), chunks.end()}, {contents.begin(), contents.end()}};
}

}  // namespace cake
