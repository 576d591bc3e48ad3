#include "fetch/readahead.h"

#include <algorithm>

namespace cake {

namespace {

// As many as a loader has threads on one file, and some.
constexpr size_t kMaxStreams = 64;
// The kernel sends the requests of one reader on several threads: they may pass each other by this.
constexpr uint64_t kSlackBytes = 2 * kMiB;
// A page fault reads this much around itself (read_ahead_kb); only more than that is a run.
constexpr uint64_t kReadAroundBytes = kMiB;
constexpr uint64_t kFirstWindowBytes = 2 * kMiB;
// A stream unused for this many accesses of the file no longer counts in sharing the window.
constexpr uint64_t kIdleAccesses = 256;

}  // namespace

Readahead::Stream& Readahead::find_or_add(uint64_t offset) {
  Stream* best = nullptr;
  for (Stream& stream : streams_) {
    const uint64_t earliest =
        std::max(stream.start, stream.next - std::min(stream.next, 2 * kSlackBytes));
    if (offset < earliest || offset > stream.next + kSlackBytes) continue;
    if (best == nullptr || stream.next > best->next) best = &stream;
  }
  if (best != nullptr) return *best;
  if (streams_.size() < kMaxStreams) {
    streams_.emplace_back();
    best = &streams_.back();
  } else {
    best = &*std::min_element(
        streams_.begin(), streams_.end(),
        [](const Stream& a, const Stream& b) { return a.last_use < b.last_use; });
  }
  *best = Stream{offset, offset, offset, kFirstWindowBytes, accesses_};
  return *best;
}

size_t Readahead::active_streams() const {
  return static_cast<size_t>(
      std::count_if(streams_.begin(), streams_.end(), [this](const Stream& stream) {
        return stream.last_use + kIdleAccesses > accesses_ &&
               stream.next - stream.start > kReadAroundBytes;
      }));
}

ByteRange Readahead::on_access(uint64_t offset, uint64_t length, uint64_t limit_bytes) {
  if (!options_.is_enabled || length == 0) return {};
  accesses_++;
  Stream& stream = find_or_add(offset);
  stream.last_use = accesses_;
  stream.next = std::max(stream.next, offset + length);
  if (stream.next - stream.start <= kReadAroundBytes) return {};

  const uint64_t share = options_.max_window_bytes / std::max<size_t>(active_streams(), 1);
  const uint64_t most = std::max(share, kFirstWindowBytes);
  stream.ahead = std::max(stream.ahead, stream.next);
  // Ask again only when half the window is used up: fewer, larger ranges.
  if (stream.ahead - stream.next > stream.window / 2) return {};
  if (stream.ahead > stream.next || stream.window == kFirstWindowBytes)
    stream.window = std::min(stream.window * 2, most);
  stream.window = std::min(stream.window, most);
  const uint64_t end =
      std::min({stream.next + stream.window, file_bytes_, stream.ahead + limit_bytes});
  if (end <= stream.ahead) return {};
  const ByteRange ask{stream.ahead, end - stream.ahead};
  stream.ahead = end;
  return ask;
}

}  // namespace cake
