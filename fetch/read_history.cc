#include "fetch/read_history.h"

#include <algorithm>

namespace cake {

namespace {

// A file has a handful of tensor sizes; one with more than this has no pattern to learn.
constexpr size_t kMaxTensorSizes = 1024;
// The kernel reads a little more than it was asked for, at both ends.
constexpr uint64_t kAlikeBytes = 2 * kMiB;
// So much of a tensor is all of it.
constexpr double kWholePart = 0.98;
// So many tensors of a size were read whole, the last ones: so will be the next.
constexpr unsigned kTrustedWholes = 3;
constexpr unsigned kMaxMistakes = 8;

constexpr Millis kRatePeriod{50};

}  // namespace

void ReadHistory::touch(ByteRange bytes) {
  for (size_t i = extents_.find(bytes.offset); i < extents_.count(); i++) {
    const Extent extent = extents_.at(i);
    if (extent.offset >= bytes.end()) break;
    if (is_touched_[i]) continue;
    is_touched_[i] = true;
    touched_bytes_ += extent.length;
    if (is_ahead_[i]) unused_bytes_ -= extent.length;
  }
}

uint64_t ReadHistory::ask(ByteRange bytes) {
  uint64_t fresh = 0;
  for (size_t i = extents_.find(bytes.offset); i < extents_.count(); i++) {
    const Extent extent = extents_.at(i);
    if (extent.offset >= bytes.end()) break;
    if (is_touched_[i] || is_ahead_[i]) continue;
    is_ahead_[i] = true;
    fresh += extent.length;
  }
  unused_bytes_ += fresh;
  return fresh;
}

void RunLengths::stopped(uint64_t tensor_bytes, uint64_t run_bytes) {
  last_part_ = static_cast<double>(run_bytes) / static_cast<double>(tensor_bytes);
  if (by_tensor_bytes_.size() >= kMaxTensorSizes) by_tensor_bytes_.clear();
  Entry& entry = by_tensor_bytes_[tensor_bytes];
  const uint64_t last = entry.runs.front();
  const bool is_alike = std::max(last, run_bytes) - std::min(last, run_bytes) <= kAlikeBytes;
  entry.times = last != 0 && is_alike ? entry.times + 1 : 1;
  std::rotate(entry.runs.begin(), entry.runs.end() - 1, entry.runs.end());
  entry.runs.front() = run_bytes;
  // What the reader of the tensor before overshot into this one need not be asked for again.
  const bool is_whole = run_bytes + std::min(kAlikeBytes, tensor_bytes / 4) >= tensor_bytes;
  entry.wholes = is_whole ? entry.wholes + 1 : 0;
}

void RunLengths::was_no_run(uint64_t tensor_bytes) {
  const auto found = by_tensor_bytes_.find(tensor_bytes);
  if (found != by_tensor_bytes_.end()) found->second.wholes = 0;
}

bool RunLengths::reads_whole(uint64_t tensor_bytes) const {
  const auto found = by_tensor_bytes_.find(tensor_bytes);
  return found != by_tensor_bytes_.end() && found->second.wholes >= kTrustedWholes;
}

void RunLengths::went_on(uint64_t tensor_bytes) {
  by_tensor_bytes_.erase(tensor_bytes);
  last_part_ = 1;
  mistakes_ = std::min(mistakes_ + 1, kMaxMistakes);
}

std::optional<uint64_t> RunLengths::expected(uint64_t tensor_bytes) const {
  const auto found = by_tensor_bytes_.find(tensor_bytes);
  if (found != by_tensor_bytes_.end()) {
    // Each mistake asks for more agreement before a length is believed again.
    if (found->second.times <= mistakes_) return std::nullopt;
    uint64_t shortest = found->second.runs.front();
    for (const uint64_t run : found->second.runs)
      if (run != 0) shortest = std::min(shortest, run);
    return shortest;
  }
  if (mistakes_ != 0 || last_part_ >= kWholePart) return std::nullopt;
  return static_cast<uint64_t>(last_part_ * static_cast<double>(tensor_bytes));
}

void ReadRate::add(uint64_t bytes, SteadyTime now) {
  if (since_ == SteadyTime{}) since_ = now;
  bytes_ += bytes;
  const auto elapsed = std::chrono::duration_cast<Millis>(now - since_);
  if (elapsed < kRatePeriod) return;
  const uint64_t rate = bytes_ * 1000 / static_cast<uint64_t>(elapsed.count());
  // Up at once, down slowly: a pause is not a slow reader.
  bytes_per_s_ = std::max(rate, (3 * bytes_per_s_ + rate) / 4);
  since_ = now;
  bytes_ = 0;
}

}  // namespace cake
