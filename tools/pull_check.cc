#include "tools/pull_check.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "store/base/mutex.h"
#include "store/base/thread_pool.h"
#include "store/verify.h"
#include "tools/pull_plan.h"

namespace cake {
namespace {

constexpr Millis kStopPoll{100};

// Whether the file is wrong for sure: what is here in part, or has no hash, is not.
Result<bool> is_wrong(Store& store, const TransferFile& file, const ContentRow& content,
                      const VerifyOptions& options) {
  if (!whole_hash(content)) return false;
  if (!file.target.empty()) return !CAKE_TRY(has_hub_bytes(file.target, file.entry));
  if (content.verified) return false;
  const ContentCheck check = CAKE_TRY(check_content(store, content, options));
  return check.state == ContentCheck::State::mismatch;
}

// Looks at all files, as many at a time as there are processors.
class PullCheck {
 public:
  PullCheck(Store& store, const std::vector<TransferFile>& files,
            const std::vector<ContentRow>& contents)
      : store_(store), files_(files), contents_(contents), answers_(files.size(), false) {
    options_.checks_digests = false;  // the hash of the whole covers them
    options_.should_stop = [this] { return stops_.load(); };
  }

  // An answer for each file.  Signals are for the calling thread to see.
  std::vector<Result<bool>> run(Interrupts& interrupts, unsigned workers) EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      left_ = files_.size();
    }
    ThreadPool pool("check", std::clamp(std::thread::hardware_concurrency(), 1U, workers));
    for (size_t i = 0; i < files_.size(); i++)
      pool.post(ThreadPool::Priority::demand, [this, i] { look(i); });
    MutexLock lock(mutex_);
    while (left_ > 0) {
      if (interrupts.has_come()) stops_ = true;
      ended_.wait_until(mutex_, steady_now() + kStopPoll);
    }
    return std::move(answers_);
  }

 private:
  void look(size_t i) EXCLUDES(mutex_) {
    Result<bool> answer = Error{Errc::cancelled, "interrupted; what came is kept"};
    if (!stops_) answer = is_wrong(store_, files_[i], contents_[i], options_);
    MutexLock lock(mutex_);
    answers_[i] = std::move(answer);
    left_--;
    ended_.notify_all();
  }

  // Constant after construction.
  Store& store_;
  const std::vector<TransferFile>& files_;
  const std::vector<ContentRow>& contents_;
  VerifyOptions options_;

  std::atomic<bool> stops_{false};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar ended_;
  size_t left_ GUARDED_BY(mutex_) = 0;
  std::vector<Result<bool>> answers_ GUARDED_BY(mutex_);
};

}  // namespace

Result<std::vector<TransferFile>> take_wrong_files(Session& session, Interrupts& interrupts,
                                                   const std::vector<TransferFile>& files,
                                                   unsigned workers) {
  Store& store = session.store();
  std::vector<ContentRow> contents;
  contents.reserve(files.size());
  for (const TransferFile& file : files)
    contents.push_back(CAKE_TRY(store.index().find_content(file.content)).value_or(ContentRow()));
  std::vector<Result<bool>> answers = PullCheck(store, files, contents).run(interrupts, workers);
  std::vector<TransferFile> wrong;
  for (size_t i = 0; i < files.size(); i++) {
    if (!CAKE_TRY(std::move(answers[i]))) continue;
    if (!contents[i].verified) CAKE_TRY(reject_content(store, contents[i]));
    session.client().forget(contents[i].id);
    wrong.push_back(files[i]);
    wrong.back().ranges = {{0, files[i].entry.bytes}};
  }
  return wrong;
}

}  // namespace cake
