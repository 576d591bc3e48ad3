// Brings the bytes of many files into the store, and to plain files when a folder is given.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "store/base/mutex.h"
#include "store/base/part_file.h"
#include "tools/progress.h"
#include "tools/session.h"

namespace cake {

struct TransferFile {
  TreeEntry entry;
  RowId content = 0;
  std::string target;  // plain file to write; empty: the store only
  // What is to be read: the ranges that the store lacks, or all of it.  An empty file has one empty
  // range.
  std::vector<ByteRange> ranges;
};

// Reads all ranges of all files, in windows, with a bounded number under way.  Thread-safe.
class Transfer {
 public:
  static constexpr uint64_t kWindowBytes = 4 * kMiB;
  // Bytes asked for, or here but not yet written.  Whoever kills a pull loses at most these.
  static constexpr uint64_t kMaxAtRiskBytes = 56 * kMiB;

  Transfer(Client& client, std::vector<TransferFile> files);
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // One worker's life: windows until there are none, one failed, or `stop` was called.  Run on as
  // many threads as windows shall be under way.
  void work() EXCLUDES(mutex_);
  // Workers return soon, without waiting for answers from the hub.
  void stop() EXCLUDES(mutex_);

  struct State {
    bool is_finished = false;           // all windows done, or failed, and no worker at work
    std::vector<ProgressLine> files;    // being worked on; their sizes are those of whole files
    ProgressLine total;                 // of what is to be read
    std::vector<std::string> finished;  // files since the last call
    std::optional<Error> error;
  };
  State take_state() EXCLUDES(mutex_);
  // Waits for the end, at most until `until`.
  void wait(SteadyTime until) const EXCLUDES(mutex_);

 private:
  struct Window {
    size_t file = 0;
    ByteRange range;
  };
  struct Next {
    size_t file = 0;
    size_t range = 0;
    uint64_t offset = 0;  // in the range
  };
  std::optional<Window> take() EXCLUDES(mutex_);
  Window peek() const REQUIRES(mutex_);
  bool may_start(uint64_t bytes) const REQUIRES(mutex_);
  void advance(const Window& window) REQUIRES(mutex_);
  Status run(const Window& window) EXCLUDES(mutex_);
  Result<std::shared_ptr<FileReader>> open_reader(size_t file) EXCLUDES(mutex_);
  Result<std::shared_ptr<PartFile>> open_target(size_t file) EXCLUDES(mutex_);
  Status finish_window(const Window& window) EXCLUDES(mutex_);

  // Constant after construction.
  Client& client_;
  const std::vector<TransferFile> files_;
  uint64_t total_bytes_ = 0;

  // Guarded by mutex_.
  mutable Mutex mutex_;
  mutable CondVar changed_;
  struct Progressing {
    std::shared_ptr<FileReader> reader;
    std::shared_ptr<PartFile> target;  // removed with this while it is unfinished
    uint64_t left_bytes = 0;
  };
  std::vector<Progressing> states_ GUARDED_BY(mutex_);
  std::set<size_t> active_ GUARDED_BY(mutex_);  // begun, not finished
  std::vector<std::string> finished_ GUARDED_BY(mutex_);
  Next next_ GUARDED_BY(mutex_);
  size_t at_work_ GUARDED_BY(mutex_) = 0;
  uint64_t outstanding_bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t done_bytes_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
  std::shared_ptr<CancelToken> stopped_ = std::make_shared<CancelToken>();
};

}  // namespace cake
