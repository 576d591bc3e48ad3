// Fetches what no reader has asked for yet: the shard that follows, the rest of a file, of a repo.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "fetch/file_reader.h"

namespace cake {

// The name of the shard that loaders read after this one: they take
// "model-00002-of-00004.safetensors" by number, whatever order the index file lists tensors in.
// nullopt: the last one, or no shard.
std::optional<std::string> next_shard(std::string_view path);

// A queue of ranges, fetched a region at a time behind everything that readers wait for.
// Thread-safe.  Nothing is called while the lock is held.
class Prefetcher : public std::enable_shared_from_this<Prefetcher> {
 public:
  // Who knows contents and snapshots; not called once the fetcher is stopping.
  struct Names {
    std::function<Result<std::shared_ptr<FileReader>>(RowId content)> open;
    std::function<Result<std::shared_ptr<const Snapshot>>(const RepoName&, const std::string&)>
        find_snapshot;
    std::function<bool(const std::string& path)> is_wanted;  // of a repo's other files; empty: any
  };

  Prefetcher(std::shared_ptr<Fetcher> fetcher, Names names)
      : fetcher_(std::move(fetcher)), names_(std::move(names)) {}

  // A content is read for the first time: its file, or the repo's files of the same kind, follow
  // when `prefetch=` says so.
  void started(const ContentRow& content) EXCLUDES(mutex_);
  // The end of a content comes near: this part of the next shard is wanted soon.
  void wants_next(const ContentRow& content, ByteRange bytes) EXCLUDES(mutex_);

 private:
  struct Job {
    RowId content = 0;
    ByteRange bytes;
  };
  void add_repo(const ContentRow& content);
  void add(Job job, bool is_urgent) EXCLUDES(mutex_);
  // Starts as much as may be under way.  On a pool thread: it asks the index.
  void pump() EXCLUDES(mutex_);
  void pump_soon(Millis delay) EXCLUDES(mutex_);
  void start(const Job& job) EXCLUDES(mutex_);
  void ended(const Job& job, const Status& status) EXCLUDES(mutex_);

  // Constant after construction.
  const std::shared_ptr<Fetcher> fetcher_;
  const Names names_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);
  std::set<RowId> started_ GUARDED_BY(mutex_);
  unsigned under_way_ GUARDED_BY(mutex_) = 0;
  unsigned failures_ GUARDED_BY(mutex_) = 0;  // in a row
  bool is_pump_due_ GUARDED_BY(mutex_) = false;
};

}  // namespace cake
