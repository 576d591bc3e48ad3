#include "fetch/file_stream.h"

#include <algorithm>
#include <utility>

namespace cake {

namespace {

// So many whole bodies in a row are no accident: a stream is one slow connection where ranges were
// many.
constexpr unsigned kIgnoredInARow = 3;
// Until then counting off so much costs less than asking again.
constexpr uint64_t kCheapSkipBytes = 4 * kMiB;
// What a stream brings at least: small files come whole.
constexpr uint64_t kLeastBytes = 16 * kMiB;

}  // namespace

FileStream::WholeBody FileStream::whole_body_came(ByteRange wanted) {
  MutexLock lock(mutex_);
  if (is_running_) return WholeBody::refuse;
  if (++ignored_in_a_row_ < kIgnoredInARow)
    return wanted.offset <= kCheapSkipBytes ? WholeBody::count_off : WholeBody::refuse;
  is_running_ = true;
  wanted_until_ = wanted.end();
  return WholeBody::take;
}

void FileStream::range_came() {
  MutexLock lock(mutex_);
  ignored_in_a_row_ = 0;
}

bool FileStream::join(const std::vector<uint64_t>& ordinals) {
  MutexLock lock(mutex_);
  if (!is_running_) return false;
  joined_.insert(joined_.end(), ordinals.begin(), ordinals.end());
  return true;
}

bool FileStream::goes_on(uint64_t position, bool is_wanted_ahead, bool is_wanted_behind) {
  MutexLock lock(mutex_);
  if (is_wanted_ahead) {
    wanted_until_ = std::max(wanted_until_, position);
    return true;
  }
  if (is_wanted_behind) return false;
  // Another stream would begin at the first byte: going on for as long as that would take to come
  // here again costs twice the best choice at most, whatever is read next.
  return position < std::max(kLeastBytes, 2 * wanted_until_);
}

std::vector<uint64_t> FileStream::end() {
  MutexLock lock(mutex_);
  is_running_ = false;
  return std::exchange(joined_, {});
}

}  // namespace cake
