// What to fetch before it is asked for.  Pure: no I/O; time and memory are given.
#pragma once

#include <cstdint>
#include <vector>

#include "fetch/read_history.h"
#include "fetch/readahead_options.h"
#include "store/base/bytes.h"

namespace cake {

// What should be fetched now.
struct ReadaheadAsk {
  ByteRange bytes;      // empty: nothing
  ByteRange next_file;  // of the shard that follows
};

// Follows the streams of one file, several at once: loaders read with many threads, each a run of
// its own, through one handle or mapping.
//
// A lone touch asks for nothing, unless it is of a tensor's begin and the last ones of that size
// were read whole.  A second, adjoining one makes a run, whose window doubles from 2 MiB: to the
// end of the tensor, or as far as earlier runs in such tensors went; beyond the tensor while that
// pays.  What was asked for and never read is held against it.  Confined to its owner's lock.
class Readahead {
 public:
  // `extents` outlives this.
  Readahead(const Extents& extents, ReadaheadOptions options);

  // A reader asked for `read`, which lies in the file.  `limit_bytes`: what memory allows to ask
  // for.
  ReadaheadAsk on_access(ByteRange read, SteadyTime now, uint64_t limit_bytes);
  // What was asked for ahead came after so long.
  void on_arrival(Millis waited);

  const ReadHistory& history() const { return history_; }

 private:
  struct Stream {
    uint64_t start = 0;          // first byte of the run
    uint64_t next = 0;           // end of what was read
    uint64_t read_bytes = 0;     // less than next - start when parts were left out
    uint64_t ahead = 0;          // end of what was asked for
    uint64_t window = 0;         // bytes to keep ahead of `next`
    uint64_t tensor_end = 0;     // of the last tensor that it surely reads
    uint64_t seen_bytes = 0;     // read of the file in all, when this was last used
    unsigned turns = 0;          // how often it was used after another one was
    uint64_t guessed_bytes = 0;  // length of the tensor whose rest was asked for at its first touch
    bool has_stopped = false;
    bool has_skipped = false;  // by stopping, it left something out
  };
  Stream& find_or_add(uint64_t offset);
  Stream* find(uint64_t offset);
  Stream& add(uint64_t offset);
  void advance(Stream& stream, ByteRange read);
  // The tensor that a run is in, or was in when it went a little beyond.
  ByteRange tensor_of(const Stream& stream) const;
  void stop_idle(const Stream& current);
  void stop(Stream& stream);
  static bool is_run(const Stream& stream);
  size_t active_streams() const;
  // Of these, those that came back after others had a turn: readers side by side.
  size_t alternating_streams() const;
  // How far ahead all streams together may be.
  uint64_t window_limit() const;
  uint64_t speculation_left() const;
  // Where to stop asking for this stream, the file's end included.
  uint64_t horizon(const Stream& stream) const;
  bool is_wasteful(const Stream& stream) const;
  uint64_t most_ahead() const;  // for one stream
  // From what was asked for; `end` is beyond that.
  ByteRange ask_until(Stream& stream, uint64_t end);
  ReadaheadAsk ask(Stream& stream, uint64_t limit_bytes);
  // For the first touch of a tensor, when no run goes on there.
  ReadaheadAsk ask_for_tensor(Stream& stream, ByteRange read, uint64_t limit_bytes);

  const Extents& extents_;
  const ReadaheadOptions options_;
  ReadHistory history_;
  RunLengths run_lengths_;
  ReadRate rate_;
  uint64_t read_bytes_ = 0;
  Millis wait_{};       // a moving average of on_arrival
  unsigned skips_ = 0;  // streams that left something out
  const Stream* last_used_ = nullptr;
  uint64_t next_file_asked_ = 0;
  std::vector<Stream> streams_;
};

}  // namespace cake
