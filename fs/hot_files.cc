#include "fs/hot_files.h"

#include <algorithm>

#include "store/base/log.h"

namespace cake {

namespace {

// The first reading fetched it; the second, and what is near enough to one, came from the store.
constexpr uint64_t kReadingsInQuarters = 7;
// More contents than this are not watched at once: those read least go.
constexpr size_t kMaxWatched = 4096;

}  // namespace

HotFiles::HotFiles(Materializer& materializer, HotOptions options)
    : materializer_(materializer), options_(options) {
  thread_.post(ThreadPool::Priority::background, [this] { run(); });
}

HotFiles::~HotFiles() {
  {
    MutexLock lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_all();
}

void HotFiles::on_read(const ContentRow& content, uint64_t bytes) {
  if (content.bytes < Materializer::kLeastBytes) return;
  bool is_due = false;
  {
    MutexLock lock(mutex_);
    last_read_ = steady_now();
    if (settled_.contains(content.id)) return;
    if (uses_.size() >= kMaxWatched && !uses_.contains(content.id))
      uses_.erase(std::min_element(uses_.begin(), uses_.end(), [](const auto& a, const auto& b) {
        return a.second.read_bytes < b.second.read_bytes;
      }));
    Use& use = uses_[content.id];
    use.content_bytes = content.bytes;
    use.read_bytes += std::min(bytes, content.bytes);
    is_due = use.read_bytes / kReadingsInQuarters >= content.bytes / 4;
  }
  if (is_due) wake_.notify_one();
}

std::optional<RowId> HotFiles::wait_for_candidate() {
  MutexLock lock(mutex_);
  while (!is_stopping_) {
    std::optional<RowId> best;
    for (const auto& [content, use] : uses_)
      if (use.read_bytes / kReadingsInQuarters >= use.content_bytes / 4) best = content;
    if (!best) {
      wake_.wait(mutex_);
      continue;
    }
    const SteadyTime idle_at = last_read_ + options_.idle_for;
    if (steady_now() >= idle_at) {
      uses_.erase(*best);
      settled_.insert(*best);
      return best;
    }
    wake_.wait_until(mutex_, idle_at);
  }
  return std::nullopt;
}

void HotFiles::run() {
  while (const std::optional<RowId> content = wait_for_candidate()) {
    MaterializeOptions options;
    options.min_free_bytes = options_.min_free_bytes;
    options.should_stop = [this] { return is_stopping_.load(); };
    const Result<Materializer::Outcome> outcome = materializer_.materialize(*content, options);
    if (!outcome)
      log_warn(outcome.error().with("materializing").message);
    else if (*outcome == Materializer::Outcome::incomplete ||
             *outcome == Materializer::Outcome::busy) {
      // Once more when it has been read once more.
      MutexLock lock(mutex_);
      settled_.erase(*content);
    }
  }
}

}  // namespace cake
