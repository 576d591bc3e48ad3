// What has been read of a file, what was fetched ahead of that, and what can be learned from it.
// Pure: no I/O, no clock.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/format/format.h"

namespace cake {

// A bit or two an extent.  Confined to its owner's lock.
class ReadHistory {
 public:
  // `extents` outlives this.
  explicit ReadHistory(const Extents& extents)
      : extents_(extents), is_touched_(extents.count()), is_ahead_(extents.count()) {}

  void touch(ByteRange bytes);
  // Asked for by readahead.  Answers how many bytes of it nobody had touched or asked for.
  uint64_t ask(ByteRange bytes);
  bool is_touched(uint64_t offset) const { return is_touched_[extents_.find(offset)]; }
  bool is_asked(uint64_t offset) const { return is_ahead_[extents_.find(offset)]; }

  // Of whole extents: what fetching them costs.
  uint64_t touched_bytes() const { return touched_bytes_; }
  // Asked for ahead, and not touched yet.
  uint64_t unused_bytes() const { return unused_bytes_; }

 private:
  const Extents& extents_;
  std::vector<bool> is_touched_, is_ahead_;
  uint64_t touched_bytes_ = 0;
  uint64_t unused_bytes_ = 0;
};

// How far runs go inside of tensors: a rank reads its slice of every tensor, a router a few of the
// experts fused in one.  Tensors of one size are read alike.  Confined to its owner's lock.
class RunLengths {
 public:
  // A run in a tensor stopped after `run_bytes` of it.
  void stopped(uint64_t tensor_bytes, uint64_t run_bytes);
  // A run that was taken for stopped went on.
  void went_on(uint64_t tensor_bytes);
  // What was taken for the begin of a run over all of such a tensor was none.
  void was_no_run(uint64_t tensor_bytes);
  // Whether runs in such tensors have lately been all of them.
  bool reads_whole(uint64_t tensor_bytes) const;
  // What to expect of the next run in such a tensor, the shortest of late; nullopt: its end.
  std::optional<uint64_t> expected(uint64_t tensor_bytes) const;

 private:
  struct Entry {
    std::array<uint64_t, 4> runs{};  // the last ones, newest first; 0: none yet
    unsigned times = 0;              // alike, in a row
    unsigned wholes = 0;             // all of the tensor, in a row
  };
  std::unordered_map<uint64_t, Entry> by_tensor_bytes_;
  double last_part_ = 1;  // of its tensor, for sizes that are new
  unsigned mistakes_ = 0;
};

// How fast a file is read.  Confined to its owner's lock.
class ReadRate {
 public:
  void add(uint64_t bytes, SteadyTime now);
  uint64_t bytes_per_s() const { return bytes_per_s_; }

 private:
  SteadyTime since_{};
  uint64_t bytes_ = 0;
  uint64_t bytes_per_s_ = 0;
};

}  // namespace cake
