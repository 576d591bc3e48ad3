#include "fetch/readahead.h"

#include <algorithm>
#include <utility>

namespace cake {

namespace {

// As many as a loader has threads on one file, and some.
constexpr size_t kMaxStreams = 64;
// The kernel sends the requests of one reader on several threads: they pass each other by this.
constexpr uint64_t kSlackBytes = 4 * kMiB;
// A page fault reads this much around itself (read_ahead_kb); only more than that is a run.
constexpr uint64_t kReadAroundBytes = kMiB;
// The kernel's own readahead has asked for so much more when its reader stops.
constexpr uint64_t kOvershootBytes = 2 * kMiB;
constexpr uint64_t kPageBytes = 4 * kKiB;
constexpr uint64_t kFirstWindowBytes = 2 * kMiB;
// A window is filled up again when so much of it was used, or half.
constexpr uint64_t kRefillBytes = 12 * kMiB;
// Whatever the rate, so that a reader that waits can become faster.
constexpr uint64_t kLeastWindowBytes = 8 * kMiB;

// A stream has stopped when others read this much since, each: a quarter of its run, between these.
// Loaders that read 32 MiB at a time take turns of that size.
constexpr uint64_t kLeastTurnBytes = 2 * kMiB;
constexpr uint64_t kMostTurnBytes = 64 * kMiB;

// A run of more slices than this is no slice.
constexpr uint64_t kMostSlices = 4;

// What is needed this much later need not be asked for yet.
constexpr Millis kLeastAhead{100};
constexpr Millis kMostAhead{10'000};
constexpr unsigned kWaitsAhead = 4;

// Beyond the tensor being read: at most this part of what was read, so that a wrong guess costs
// little; all of the window once so much was read without leaving anything out.
constexpr uint64_t kPartBeyond = 4;
constexpr uint64_t kPartBeyondOnceSkipped = 16;
constexpr uint64_t kTrustedBytes = 256 * kMiB;
// With more waste than this part of what was read, windows stay far below the run's length.
constexpr uint64_t kPartWasted = 4;
constexpr uint64_t kToleratedWaste = 8 * kMiB;

constexpr uint64_t over(uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

}  // namespace

Readahead::Readahead(const Extents& extents, ReadaheadOptions options)
    : extents_(extents), options_(options), history_(extents) {
  streams_.reserve(kMaxStreams);  // last_used_ points into it
}

// --- streams ---

bool Readahead::is_run(const Stream& stream) {
  const uint64_t span = stream.next - stream.start;
  return span > kReadAroundBytes && stream.read_bytes >= span / 4 * 3;
}

size_t Readahead::active_streams() const {
  return static_cast<size_t>(
      std::count_if(streams_.begin(), streams_.end(),
                    [](const Stream& stream) { return !stream.has_stopped && is_run(stream); }));
}

size_t Readahead::alternating_streams() const {
  return static_cast<size_t>(
      std::count_if(streams_.begin(), streams_.end(), [](const Stream& stream) {
        return !stream.has_stopped && stream.turns > 1 && is_run(stream);
      }));
}

Readahead::Stream* Readahead::find(uint64_t offset) {
  Stream* best = nullptr;
  const auto distance = [offset](const Stream& stream) {
    return std::max(stream.next, offset) - std::min(stream.next, offset);
  };
  for (Stream& stream : streams_) {
    // What goes on after a stop does so where it stopped, or it is something else nearby.
    const uint64_t slack = stream.has_stopped ? kReadAroundBytes : kSlackBytes;
    if (offset < over(stream.next, 2 * slack) || offset > stream.next + slack) continue;
    if (offset < over(stream.start, slack)) continue;
    if (best == nullptr || distance(stream) < distance(*best)) best = &stream;
  }
  return best;
}

Readahead::Stream& Readahead::add(uint64_t offset) {
  Stream fresh;
  fresh.start = fresh.next = fresh.ahead = fresh.tensor_end = offset;
  // Part of what was asked for on behalf of another may be this one's: a reader jumped, or a second
  // one took over.
  for (Stream& stream : streams_) {
    if (stream.next > offset || stream.ahead <= offset) continue;
    fresh.ahead = std::max(fresh.ahead, stream.ahead);
    stream.ahead = std::max(stream.next, offset);
  }
  if (streams_.size() < kMaxStreams) return streams_.emplace_back(fresh);
  Stream& oldest = *std::min_element(
      streams_.begin(), streams_.end(),
      [](const Stream& a, const Stream& b) { return a.seen_bytes < b.seen_bytes; });
  if (!oldest.has_stopped) stop(oldest);
  oldest = fresh;
  return oldest;
}

Readahead::Stream& Readahead::find_or_add(uint64_t offset) {
  Stream* const known = find(offset);
  if (known == nullptr) return add(offset);
  if (known->has_stopped) {
    known->has_stopped = false;
    if (std::exchange(known->has_skipped, false)) skips_--;
    // At a border it may be another reader, or the next tensor's turn.
    if (known->next < known->tensor_end && is_run(*known))
      run_lengths_.went_on(tensor_of(*known).length);
  }
  return *known;
}

void Readahead::advance(Stream& stream, ByteRange read) {
  stream.start = std::min(stream.start, read.offset);
  stream.next = std::max(stream.next, read.end());
  stream.read_bytes += read.length;
  stream.tensor_end = tensor_of(stream).end();
  stream.seen_bytes = read_bytes_;
  if (std::exchange(last_used_, &stream) != &stream) stream.turns++;
}

ByteRange Readahead::tensor_of(const Stream& stream) const {
  const ByteRange tensor = extents_.run_of(extents_.find(stream.next - 1));
  const bool began_before = stream.start < tensor.offset;
  if (!began_before || stream.next - tensor.offset > kOvershootBytes) return tensor;
  return extents_.run_of(extents_.find(tensor.offset - 1));
}

void Readahead::stop_idle(const Stream& current) {
  const size_t others = std::max<size_t>(alternating_streams(), 1);
  for (Stream& stream : streams_) {
    if (&stream == &current || stream.has_stopped) continue;
    if (!is_run(stream) && stream.guessed_bytes == 0) continue;
    const uint64_t turn =
        std::clamp((stream.next - stream.start) / 4, kLeastTurnBytes, kMostTurnBytes);
    if (read_bytes_ - stream.seen_bytes > turn * others) stop(stream);
  }
}

void Readahead::stop(Stream& stream) {
  stream.has_stopped = true;
  stream.window = 0;
  if (!is_run(stream)) {
    if (stream.guessed_bytes != 0) run_lengths_.was_no_run(stream.guessed_bytes);
    return;
  }
  const size_t last = extents_.find(stream.next - 1);
  const ByteRange tensor = tensor_of(stream);
  const uint64_t begin = std::max(stream.start, tensor.offset);
  const uint64_t end = std::min(stream.next, tensor.end());
  if (end > begin) run_lengths_.stopped(tensor.length, end - begin);
  if (last + 1 < extents_.count() && !history_.is_touched(extents_.at(last + 1).offset)) {
    stream.has_skipped = true;
    skips_++;
  }
}

// --- windows ---

uint64_t Readahead::window_limit() const {
  if (rate_.bytes_per_s() == 0) return options_.max_window_bytes;  // not known yet
  const Millis ahead = std::clamp(kWaitsAhead * wait_, kLeastAhead, kMostAhead);
  const uint64_t useful = rate_.bytes_per_s() / 1000 * static_cast<uint64_t>(ahead.count());
  return std::min(std::max(useful, kLeastWindowBytes), options_.max_window_bytes);
}

uint64_t Readahead::speculation_left() const {
  uint64_t in_windows = 0;
  uint64_t beyond = next_file_asked_;
  for (const Stream& stream : streams_) {
    if (stream.has_stopped) continue;
    in_windows += over(stream.ahead, stream.next);
    beyond += over(stream.ahead, stream.tensor_end);
  }
  const uint64_t used = over(history_.unused_bytes(), in_windows) + beyond;
  const uint64_t touched = history_.touched_bytes();
  uint64_t allowed = touched / (skips_ != 0 ? kPartBeyondOnceSkipped : kPartBeyond);
  if (skips_ == 0 && touched >= kTrustedBytes) allowed = options_.max_window_bytes;
  return over(allowed, used);
}

uint64_t Readahead::horizon(const Stream& stream) const {
  const ByteRange tensor = tensor_of(stream);
  const uint64_t begin = std::max(stream.start, tensor.offset);
  const std::optional<uint64_t> expected = run_lengths_.expected(tensor.length);
  if (expected && stream.next > begin) {
    // What is read a slice at a time goes on by a slice: two experts may be neighbours.
    const uint64_t slices = (stream.next - begin + *expected - 1) / *expected;
    const uint64_t end = begin + std::max<uint64_t>(slices, 1) * *expected;
    if (slices <= kMostSlices && end < tensor.end()) return end;
  }
  if (options_.prefetch == Prefetch::tensor) return std::max(tensor.end(), stream.next);
  return std::max(stream.ahead, tensor.end()) + speculation_left();
}

bool Readahead::is_wasteful(const Stream& stream) const {
  const uint64_t wasted = over(history_.unused_bytes(), over(stream.ahead, stream.next));
  return wasted > history_.touched_bytes() / kPartWasted + kToleratedWaste;
}

uint64_t Readahead::most_ahead() const {
  return std::max(window_limit() / std::max<size_t>(active_streams(), 1), kFirstWindowBytes);
}

ByteRange Readahead::ask_until(Stream& stream, uint64_t end) {
  const ByteRange bytes{stream.ahead, end - stream.ahead};
  history_.ask(bytes);
  stream.ahead = end;
  return bytes;
}

ReadaheadAsk Readahead::ask_for_tensor(Stream& stream, ByteRange read, uint64_t limit_bytes) {
  if (stream.window != 0 || is_wasteful(stream)) return {};
  // The page that faulted is in the middle of what the kernel asks for.
  const uint64_t touched = std::min(read.offset + read.length / 2 + kPageBytes, read.end() - 1);
  const ByteRange tensor = extents_.run_of(extents_.find(touched));
  // Its begin may be there already: the kernel goes on beyond the tensor that is read.
  const bool is_begin =
      read.offset <= tensor.offset ||
      (read.offset <= tensor.offset + kOvershootBytes && history_.is_touched(tensor.offset));
  if (!is_begin || !run_lengths_.reads_whole(tensor.length)) return {};
  stream.ahead = std::max(stream.ahead, stream.next);
  // Whose first fault reads before the tensor, its last one reads beyond, and waits for that.
  const bool is_mapped = read.offset + kPageBytes < tensor.offset;
  const uint64_t needed = tensor.end() + (is_mapped ? kReadAroundBytes * 3 / 2 : 0);
  const uint64_t end = std::min(
      {needed, extents_.file_bytes(), stream.next + most_ahead(), stream.ahead + limit_bytes});
  if (end <= stream.ahead) return {};
  stream.guessed_bytes = tensor.length;
  stream.window = end - stream.ahead;
  return {ask_until(stream, end), {}};
}

ReadaheadAsk Readahead::ask(Stream& stream, uint64_t limit_bytes) {
  const uint64_t most = most_ahead();
  stream.ahead = std::max(stream.ahead, stream.next);
  // Not for every read: fewer, larger ranges.  Not long either, or part of the link lies idle.
  const uint64_t refill = std::min(stream.window / 2, kRefillBytes);
  if (stream.window - std::min(stream.window, stream.ahead - stream.next) < refill) return {};
  const uint64_t earned = stream.read_bytes / (is_wasteful(stream) ? 8 : 1);
  const uint64_t grown = stream.window == 0 ? kFirstWindowBytes : 2 * stream.window;
  const uint64_t window = std::min(grown, std::min(most, std::max(earned, kFirstWindowBytes)));

  const uint64_t file_bytes = extents_.file_bytes();
  const uint64_t wanted = std::min(stream.next + window, horizon(stream));
  const uint64_t end = std::min({wanted, file_bytes, stream.ahead + limit_bytes});
  ReadaheadAsk made;
  if (wanted > file_bytes && history_.touched_bytes() > file_bytes / 2 &&
      wanted - file_bytes >= next_file_asked_ + kFirstWindowBytes) {
    made.next_file = {next_file_asked_, wanted - file_bytes - next_file_asked_};
    next_file_asked_ = made.next_file.end();
  }
  if (end <= stream.ahead) return made;
  // No crumbs, but for what completes a tensor, a slice or the file.
  const bool is_crumb =
      end - stream.ahead < std::clamp(window / 4, kFirstWindowBytes, kRefillBytes);
  if (is_crumb && end != wanted && end != file_bytes) return made;
  if (is_crumb && wanted > stream.tensor_end && end != file_bytes) return made;
  made.bytes = ask_until(stream, end);
  stream.window = window;
  return made;
}

ReadaheadAsk Readahead::on_access(ByteRange read, SteadyTime now, uint64_t limit_bytes) {
  if (options_.prefetch == Prefetch::off || read.length == 0) return {};
  history_.touch(read);
  rate_.add(read.length, now);
  read_bytes_ += read.length;
  Stream& stream = find_or_add(read.offset);
  advance(stream, read);
  stop_idle(stream);
  const ReadaheadAsk whole = ask_for_tensor(stream, read, limit_bytes);
  if (whole.bytes.length != 0 || !is_run(stream)) return whole;
  return ask(stream, limit_bytes);
}

void Readahead::on_arrival(Millis waited) {
  wait_ = wait_ == Millis{} ? waited : (7 * wait_ + waited) / 8;
}

}  // namespace cake
