#include "fs/event_log.h"

#include "store/base/clock.h"
#include "store/base/without_controls.h"

namespace cake {

namespace {

// Names and contents remembered; beyond, some events come twice.
constexpr size_t kMaxRemembered = 100'000;

}  // namespace

void EventLog::add(std::string_view word, std::string_view text) {
  // One event, one line: names come from a hub.
  const std::string line =
      without_controls(cat(format_rfc3339(unix_now()), ' ', word, ' ', text), ' ');
  MutexLock lock(mutex_);
  if (lines_.size() + line.size() >= kMaxBytes) {
    const size_t end = lines_.find('\n', lines_.size() / 2);
    lines_.erase(0, end == std::string::npos ? lines_.size() : end + 1);
  }
  lines_.append(line).push_back('\n');
  copy_.reset();
}

void EventLog::note_resolved(const std::string& typed, const std::string& commit) {
  std::string before;
  {
    MutexLock lock(mutex_);
    if (resolved_.size() >= kMaxRemembered) resolved_.clear();
    std::string& known = resolved_[typed];
    if (known == commit) return;
    before = std::exchange(known, commit);
  }
  if (before.empty())
    add("resolved", cat(typed, ' ', commit));
  else
    add("moved", cat(typed, ' ', commit, " from ", before));
}

void EventLog::note_opened(const ContentRow& content) {
  {
    MutexLock lock(mutex_);
    if (opened_.size() >= kMaxRemembered) opened_.clear();
    if (!opened_.insert(content.id).second) return;
  }
  add("opened", cat(content.repo.id, '/', content.path, ' ', content.bytes));
}

std::shared_ptr<const std::string> EventLog::text() const {
  MutexLock lock(mutex_);
  if (!copy_) copy_ = std::make_shared<const std::string>(lines_);
  return copy_;
}

}  // namespace cake
