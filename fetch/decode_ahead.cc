#include "fetch/decode_ahead.h"

#include <algorithm>

namespace cake {

namespace {

// The kernel sends the requests of one reader on several threads: they may pass each other by this.
constexpr uint64_t kSlackBytes = 2 * kMiB;
// A page fault reads this much around itself (read_ahead_kb); only more than that is a run.
constexpr uint64_t kReadAroundBytes = kMiB;
// A run that was not used for this many accesses has no part in the window.
constexpr uint64_t kIdleAccesses = 128;

}  // namespace

DecodeAhead::Run& DecodeAhead::find_or_add(uint64_t offset) {
  Run* best = nullptr;
  for (Run& run : runs_) {
    const uint64_t earliest = std::max(run.start, run.next - std::min(run.next, kSlackBytes));
    if (offset < earliest || offset > run.next + kSlackBytes) continue;
    if (best == nullptr || run.next > best->next) best = &run;
  }
  if (best != nullptr) return *best;
  if (runs_.size() < kMaxRuns) {
    runs_.emplace_back();
    best = &runs_.back();
  } else {
    best = &*std::min_element(runs_.begin(), runs_.end(),
                              [](const Run& a, const Run& b) { return a.last_use < b.last_use; });
  }
  *best = Run{offset, offset, offset, accesses_};
  return *best;
}

uint64_t DecodeAhead::window() const {
  const auto active = std::count_if(runs_.begin(), runs_.end(), [this](const Run& run) {
    return run.last_use + kIdleAccesses > accesses_ && run.next - run.start > kReadAroundBytes;
  });
  return std::max(kWindowBytes / std::max<uint64_t>(static_cast<uint64_t>(active), 1),
                  kLeastWindowBytes);
}

ByteRange DecodeAhead::on_access(uint64_t offset, uint64_t length) {
  if (length == 0) return {};
  accesses_++;
  Run& run = find_or_add(offset);
  run.last_use = accesses_;
  run.next = std::max(run.next, offset + length);
  if (run.next - run.start <= kReadAroundBytes) return {};
  run.ahead = std::max(run.ahead, run.next);
  const uint64_t end = std::min(run.next + window(), file_bytes_);
  if (end <= run.ahead) return {};
  const ByteRange ask{run.ahead, end - run.ahead};
  run.ahead = end;
  return ask;
}

}  // namespace cake
