// Brings the bytes of many files into the store, and to plain files when a folder is given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/base/file.h"
#include "store/base/mutex.h"
#include "tools/session.h"

namespace cake {

struct TransferFile {
  TreeEntry entry;
  RowId content = 0;
  std::string target;  // plain file to write; empty: the store only
};

// Reads all windows of all files with a bounded number under way.  Thread-safe.
class Transfer {
 public:
  static constexpr uint64_t kWindowBytes = 16 * kMiB;

  Transfer(Client& client, std::vector<TransferFile> files);
  // Removes what is left of unfinished targets.
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // One worker's life: windows until there are none, one failed, or `stop` was called.  Run on as
  // many threads as windows shall be under way.
  void work() EXCLUDES(mutex_);
  // Workers return soon, without waiting for answers from the hub.
  void stop() EXCLUDES(mutex_);

  struct State {
    bool is_finished = false;  // all windows done, or failed, and no worker at work
    uint64_t done_bytes = 0;
    uint64_t total_bytes = 0;
    std::string current;  // a file that is being worked on
    std::optional<Error> error;
  };
  State state() const EXCLUDES(mutex_);
  // Waits for the end, at most until `until`.
  void wait(SteadyTime until) const EXCLUDES(mutex_);

 private:
  struct Window {
    size_t file = 0;
    uint64_t offset = 0;
  };
  std::optional<Window> take() EXCLUDES(mutex_);
  Status run(const Window& window) EXCLUDES(mutex_);
  Result<std::shared_ptr<FileReader>> open_reader(size_t file) EXCLUDES(mutex_);
  Result<std::shared_ptr<File>> open_target(size_t file) EXCLUDES(mutex_);
  Status finish_window(const Window& window, uint64_t length) EXCLUDES(mutex_);

  // Constant after construction.
  Client& client_;
  const std::vector<TransferFile> files_;
  uint64_t total_bytes_ = 0;

  // Guarded by mutex_.
  mutable Mutex mutex_;
  mutable CondVar changed_;
  struct Progressing {
    std::shared_ptr<const LeaseHold> lease;  // nobody evicts what is being pulled
    std::shared_ptr<FileReader> reader;
    std::shared_ptr<File> target;
    uint64_t left_bytes = 0;
    bool is_finished = false;
  };
  std::vector<Progressing> states_ GUARDED_BY(mutex_);
  Window next_ GUARDED_BY(mutex_);
  size_t at_work_ GUARDED_BY(mutex_) = 0;
  uint64_t done_bytes_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
  std::shared_ptr<CancelToken> stopped_ = std::make_shared<CancelToken>();
};

}  // namespace cake
