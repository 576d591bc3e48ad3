// A reader of a file without a file: what Readahead makes of its requests, counted.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "fetch/readahead.h"

namespace cake {

// Time passes as the bytes come; what is asked for is there at once.
class Reading {
 public:
  explicit Reading(Extents extents, ReadaheadOptions options = {}, uint64_t bytes_per_ms = 400'000)
      : extents_(std::move(extents)), readahead_(extents_, options), bytes_per_ms_(bytes_per_ms) {}

  uint64_t file_bytes() const { return extents_.file_bytes(); }
  // Where the i-th of equal tensors begins.
  uint64_t tensor(unsigned i) const {
    return extents_.run_of(0).length + extents_.run_of(1).length * i;
  }

  ReadaheadAsk touch(uint64_t offset, uint64_t length, uint64_t limit = kGiB) {
    length = std::min(length, file_bytes() - offset);
    now_ += std::chrono::microseconds(1 + length * 1000 / bytes_per_ms_);
    const bool was_there = fetch({offset, length}) == 0;
    (was_there ? hits_ : misses_)++;
    const ReadaheadAsk ask = readahead_.on_access({offset, length}, now_, limit);
    if (ask.bytes.length == 0) return ask;
    EXPECT_LE(ask.bytes.end(), file_bytes());
    EXPECT_LE(ask.bytes.length, limit);
    readahead_.on_arrival(Millis(50));
    fetch(ask.bytes);
    return ask;
  }
  // In requests of a mebibyte.
  void read(uint64_t offset, uint64_t length) {
    for (uint64_t at = offset; at < offset + length; at += kMiB)
      touch(at, std::min(kMiB, offset + length - at));
  }

  uint64_t fetched_bytes() const { return fetched_bytes_; }
  double cost(uint64_t wanted_bytes) const {
    return static_cast<double>(fetched_bytes_) / static_cast<double>(wanted_bytes);
  }
  bool has(uint64_t offset) const { return fetched_.contains(extents_.find(offset)); }
  // Requests that had to wait for nothing, of all.
  double hit_rate() const {
    return static_cast<double>(hits_) / static_cast<double>(hits_ + misses_);
  }

 private:
  uint64_t fetch(ByteRange bytes) {
    uint64_t fresh = 0;
    for (size_t i = extents_.find(bytes.offset); i < extents_.count(); i++) {
      if (extents_.at(i).offset >= bytes.end()) break;
      if (fetched_.insert(i).second) fresh += extents_.at(i).length;
    }
    fetched_bytes_ += fresh;
    return fresh;
  }

  const Extents extents_;
  Readahead readahead_;
  const uint64_t bytes_per_ms_;
  SteadyTime now_ = SteadyTime(std::chrono::hours(1));
  std::set<size_t> fetched_;
  uint64_t fetched_bytes_ = 0, hits_ = 0, misses_ = 0;
};

}  // namespace cake
