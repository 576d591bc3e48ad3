#include "fetch/range_fetch.h"

#include <algorithm>
#include <cstring>

#include "fetch/retry.h"

namespace cake {

namespace {

// Bytes are told to Flow in portions: it is under a lock that all share.
constexpr uint64_t kNoteBytes = 256 * kKiB;

Flow::End end_of(const Status& status) {
  if (status.ok()) return Flow::End::whole;
  if (status.error().code == Errc::rate_limited) return Flow::End::limited;
  return status.error().code == Errc::timeout ? Flow::End::stalled : Flow::End::other;
}

}  // namespace

RangeSink::WholeBody RangeFetch::on_whole_body() {
  whole_body_ = reader_->whole_body_came(range_);
  if (!is_stream()) return *whole_body_;
  if (!is_demand_) fetcher_->background_bytes_ -= range_.bytes.length - received_;
  is_demand_ = true;
  range_ = {0, reader_->extents().count(), {0, reader_->bytes()}};
  next_ = received_ = filled_ = 0;
  chunk_.reset();
  return *whole_body_;
}

bool RangeFetch::on_bytes(uint64_t offset, ByteSpan bytes) {
  if (offset != range_.bytes.offset + received_ || bytes.size() > range_.bytes.length - received_)
    return false;
  if (received_ == 0) {
    first_byte_at_ = steady_now();
    if (!whole_body_) reader_->stream().range_came();
  }
  received_ += bytes.size();
  if (!is_demand_) fetcher_->background_bytes_ -= bytes.size();
  unnoted_ += bytes.size();
  if (unnoted_ >= kNoteBytes) fetcher_->note_bytes(std::exchange(unnoted_, 0));
  fetcher_->health_.succeeded();
  while (!bytes.empty()) {
    if (next_ == range_.first + range_.count) return false;
    const uint64_t length = reader_->extents().at(next_).length;
    if (filled_ == 0 && (!is_stream() || reader_->lacks(next_)))
      chunk_ = fetcher_->store().buffers().allocate(length);
    const size_t part = std::min<uint64_t>(bytes.size(), length - filled_);
    if (chunk_) std::memcpy(chunk_->bytes().data() + filled_, bytes.data(), part);
    filled_ += part;
    bytes = bytes.subspan(part);
    if (filled_ != length) continue;
    filled_ = 0;
    if (chunk_) reader_->arrived(next_, std::move(chunk_));
    next_++;
    if (is_stream() && next_ != range_.count && !reader_->stream_goes_on(next_)) {
      is_enough_ = true;
      return false;
    }
  }
  return !fetcher_->is_stopping();
}

void RangeFetch::on_end(Status status) {
  chunk_.reset();
  if (!is_demand_) fetcher_->background_bytes_ -= range_.bytes.length - received_;
  const uint64_t end = range_.first + range_.count;
  if (is_enough_)
    status = Status{};
  else if (status.ok() && next_ != end)
    status = Error{Errc::upstream, "the answer ended early"};
  if (!status.ok() && whole_body_ != WholeBody::refuse)
    fetcher_->health_.failed(status.error().code);
  give_back(status);
  fetcher_->leave_region(region_);
  if (began_at_ != SteadyTime{})
    fetcher_->range_over(*this, whole_body_ ? Flow::End::other : end_of(status));
}

void RangeFetch::give_back(const Status& status) {
  std::vector<uint64_t> missing;
  if (is_stream())
    missing = reader_->stream_ended();
  else
    while (next_ != range_.first + range_.count) missing.push_back(next_++);
  if (missing.empty()) return;
  if (status.ok()) return reader_->restart(missing);  // those behind a stream
  if (is_refusal(status.error().code))
    return reader_->range_refused(missing, status.error(), address_);
  if (whole_body_ == WholeBody::refuse && reader_->stream().join(missing)) return;
  reader_->range_ended(missing, status);
}

}  // namespace cake
