#include "tests/support/fake_upstream.h"

#include <algorithm>

#include "store/base/digest.h"

namespace cake {

FakeUpstream::FakeUpstream() : thread_([this] { run(); }) {}

FakeUpstream::~FakeUpstream() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_stopping_ = true;
    for (auto& task : held_) tasks_.push_back(std::move(task));
    held_.clear();
    if (!down_) down_ = Error{Errc::cancelled, "the upstream ends"};
  }
  changed_.notify_all();
  thread_.join();
}

void FakeUpstream::serve(const std::string& repo, const std::string& revision,
                         const std::string& commit, std::map<std::string, std::string> files) {
  const std::lock_guard<std::mutex> lock(mutex_);
  refs_[{repo, revision}] = commit;
  commits_[{repo, commit}] = std::move(files);
}

void FakeUpstream::fail_next_reads(std::vector<Failure> failures) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Failure& failure : failures) failures_.push_back(std::move(failure));
}

void FakeUpstream::set_down(std::optional<Error> error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  down_ = std::move(error);
}

void FakeUpstream::refuse(const std::string& repo, Error error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  refused_[repo] = std::move(error);
}

void FakeUpstream::hold() {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_held_ = true;
}

void FakeUpstream::resume() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_held_ = false;
    for (auto& task : held_) tasks_.push_back(std::move(task));
    held_.clear();
  }
  changed_.notify_all();
}

void FakeUpstream::corrupt_next_read() {
  const std::lock_guard<std::mutex> lock(mutex_);
  corrupts_next_ = true;
}

FakeUpstream::Counts FakeUpstream::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

std::vector<ByteRange> FakeUpstream::ranges() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return ranges_;
}

void FakeUpstream::post(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void FakeUpstream::after(Millis delay, std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    timers_.push_back({steady_now() + delay, std::move(task)});
  }
  changed_.notify_all();
}

void FakeUpstream::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    SteadyTime next = steady_now() + Millis(1000);
    for (size_t i = 0; i < timers_.size();) {
      if (timers_[i].at <= steady_now()) {
        tasks_.push_back(std::move(timers_[i].task));
        timers_.erase(timers_.begin() + static_cast<ptrdiff_t>(i));
      } else {
        next = std::min(next, timers_[i].at);
        i++;
      }
    }
    if (tasks_.empty()) {
      if (is_stopping_) return;
      changed_.wait_until(lock, next);
      continue;
    }
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

void FakeUpstream::resolve_revision(const RepoName& repo, const std::string& revision, Deadline,
                                    Done<RevisionInfo> done) {
  auto task = [=, this] {
    std::unique_lock<std::mutex> lock(mutex_);
    counts_.resolves++;
    const auto found = refs_.find({repo.id, revision});
    Result<RevisionInfo> answer = Error{Errc::not_found, "no such revision"};
    if (down_)
      answer = *down_;
    else if (found != refs_.end())
      answer = RevisionInfo{found->second, 1'700'000'000, repo.id};
    lock.unlock();
    done(answer);
  };
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    (is_held_ ? held_ : tasks_).push_back(std::move(task));
  }
  changed_.notify_all();
}

void FakeUpstream::list_tree(const RepoName& repo, const std::string& commit, Deadline,
                             Done<std::vector<TreeEntry>> done) {
  post([=, this] {
    std::unique_lock<std::mutex> lock(mutex_);
    counts_.trees++;
    Result<std::vector<TreeEntry>> answer = Error{Errc::not_found, "no such commit"};
    const auto found = commits_.find({repo.id, commit});
    if (down_) {
      answer = *down_;
    } else if (found != commits_.end()) {
      std::vector<TreeEntry> entries;
      for (const auto& [path, bytes] : found->second)
        entries.push_back({path,
                           bytes.size(),
                           {file_hash_hex(FileHash::git_blob_sha1, as_bytes(bytes)), "", ""}});
      answer = std::move(entries);
    }
    lock.unlock();
    done(answer);
  });
}

void FakeUpstream::list_repos(RepoType, const std::string& author, ListPart, Deadline,
                              Done<RepoList> done) {
  post([=, this] {
    std::unique_lock<std::mutex> lock(mutex_);
    counts_.authors++;
    std::set<std::string> ids;
    for (const auto& [key, commit] : refs_)
      if (key.first.starts_with(author + "/")) ids.insert(key.first);
    Result<RepoList> answer = RepoList{{ids.begin(), ids.end()}};
    if (down_) answer = *down_;
    lock.unlock();
    done(answer);
  });
}

void FakeUpstream::read(const FileAddress& file, ByteRange range, bool, Deadline,
                        std::shared_ptr<RangeSink> sink) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    counts_.reads++;
    ranges_.push_back(range);
  }
  auto task = [=, this] { answer_read(file, range, *sink); };
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    (is_held_ ? held_ : tasks_).push_back(std::move(task));
  }
  changed_.notify_all();
}

void FakeUpstream::answer_read(const FileAddress& file, ByteRange range, RangeSink& sink) {
  std::string bytes;
  std::optional<Failure> failure;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (down_) failure = Failure{*down_, 0};
    const auto refused = refused_.find(file.repo.id);
    if (refused != refused_.end()) failure = Failure{refused->second, 0};
    if (!failure && !failures_.empty()) {
      failure = failures_.front();
      failures_.pop_front();
    }
    const auto& files = commits_.at({file.repo.id, file.commit});
    bytes = files.at(file.path).substr(range.offset, range.length);
    if (std::exchange(corrupts_next_, false)) bytes[0] = static_cast<char>(bytes[0] ^ 1);
    if (failure) bytes.resize(std::min<uint64_t>(bytes.size(), failure->after_bytes));
    counts_.bytes += bytes.size();
  }
  for (uint64_t at = 0; at < bytes.size(); at += 64 * kKiB)
    if (!sink.on_bytes(
            range.offset + at,
            as_bytes(bytes).subspan(at, std::min<uint64_t>(64 * kKiB, bytes.size() - at)))) {
      sink.on_end(Error{Errc::cancelled, "the sink had enough"});
      return;
    }
  sink.on_end(failure ? Status(failure->error) : Status());
}

}  // namespace cake
