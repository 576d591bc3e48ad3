// An upstream without sockets: files in memory, failures by script, every call counted.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fetch/upstream.h"

namespace cake {

// Answers on one thread of its own, in order, in blocks of 64 KiB.  Thread-safe.
class FakeUpstream final : public Upstream {
 public:
  FakeUpstream();
  ~FakeUpstream() override;

  // The next snapshot of a repo; `revision` leads to it from now on.
  void serve(const std::string& repo, const std::string& revision, const std::string& commit,
             std::map<std::string, std::string> files);
  // Answers the n-th next reads: error in front, or cut after so many bytes.
  struct Failure {
    Error error;
    uint64_t after_bytes = 0;
  };
  void fail_next_reads(std::vector<Failure> failures);
  // Every call fails with this until it is reset.
  void set_down(std::optional<Error> error);
  // Reads of this repo's files fail with it.
  void refuse(const std::string& repo, Error error);
  // Reads, and questions which commit a revision is, wait until resume.
  void hold();
  void resume();
  // Flips a bit in what the next read delivers.
  void corrupt_next_read();

  struct Counts {
    unsigned resolves = 0, trees = 0, authors = 0, reads = 0;
    uint64_t bytes = 0;
  };
  Counts counts() const;
  // Offset and length of every read, as asked.
  std::vector<ByteRange> ranges() const;

  std::string source() const override { return "hf:fake"; }
  void resolve_revision(const RepoName& repo, const std::string& revision, Deadline deadline,
                        Done<RevisionInfo> done) override;
  void list_tree(const RepoName& repo, const std::string& commit, Deadline deadline,
                 Done<std::vector<TreeEntry>> done) override;
  void list_repos(RepoType type, const std::string& author, ListPart part, Deadline deadline,
                  Done<RepoList> done) override;
  void read(const FileAddress& file, ByteRange range, bool is_demand, Deadline deadline,
            std::shared_ptr<RangeSink> sink) override;
  void after(Millis delay, std::function<void()> task) override;

 private:
  struct Timer {
    SteadyTime at;
    std::function<void()> task;
  };
  void post(std::function<void()> task);
  void run();
  void answer_read(const FileAddress& file, ByteRange range, RangeSink& sink);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::deque<std::function<void()>> held_;
  std::vector<Timer> timers_;
  bool is_stopping_ = false;
  bool is_held_ = false;
  bool corrupts_next_ = false;
  std::optional<Error> down_;
  std::map<std::string, Error> refused_;
  std::deque<Failure> failures_;
  Counts counts_;
  std::vector<ByteRange> ranges_;
  std::map<std::pair<std::string, std::string>, std::string> refs_;
  std::map<std::pair<std::string, std::string>, std::map<std::string, std::string>> commits_;
  std::thread thread_;
};

}  // namespace cake
