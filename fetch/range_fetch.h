// A range under way: the upstream's bytes cut into extents, and what is given back of them.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fetch/fetcher.h"
#include "fetch/file_reader.h"

namespace cake {

// Made and begun by the fetcher, then confined to the upstream's thread.
class RangeFetch final : public RangeSink {
 public:
  RangeFetch(std::shared_ptr<Fetcher> fetcher, std::shared_ptr<FileReader> reader,
             PlannedRange range, Fetcher::RegionKey region, bool is_demand)
      : fetcher_(std::move(fetcher)),
        reader_(std::move(reader)),
        range_(range),
        region_(region),
        is_demand_(is_demand),
        next_(range.first) {
    if (!is_demand_) fetcher_->background_bytes_ += range_.bytes.length;
  }

  const PlannedRange& range() const { return range_; }
  const FileReader& reader() const { return *reader_; }
  // From here on Flow counts it.  Answers what to ask.
  const FileAddress& begin() {
    began_at_ = steady_now();
    address_ = reader_->address();
    return address_;
  }

  WholeBody on_whole_body() override;
  bool on_bytes(uint64_t offset, ByteSpan bytes) override;
  void on_end(Status status) override;

  // Of a whole range: until the first byte, and from there to the end.
  std::pair<Millis, Millis> times() const {
    return {std::chrono::duration_cast<Millis>(first_byte_at_ - began_at_),
            std::chrono::duration_cast<Millis>(steady_now() - first_byte_at_)};
  }

 private:
  // What has not come.
  void give_back(const Status& status);

  // The server sends the file from its first byte, and all of it is kept (fetch/file_stream.h).
  bool is_stream() const { return whole_body_ == WholeBody::take; }

  const std::shared_ptr<Fetcher> fetcher_;
  const std::shared_ptr<FileReader> reader_;
  PlannedRange range_;  // that was planned, or of the stream that became of it
  const Fetcher::RegionKey region_;
  bool is_demand_;
  std::optional<WholeBody> whole_body_;  // what was done about one
  bool is_enough_ = false;               // a stream that nobody needs more of
  uint64_t next_;                        // ordinal being filled
  FileAddress address_;                  // that was asked
  SteadyTime began_at_{}, first_byte_at_{};
  uint64_t received_ = 0;
  uint64_t unnoted_ = 0;  // not yet told to Flow
  size_t filled_ = 0;
  std::shared_ptr<ChunkBuffer> chunk_;
};

}  // namespace cake
