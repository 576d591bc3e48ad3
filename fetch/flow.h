// How many ranges to fetch at a time, and how large ones.  Pure: time is given.
#pragma once

#include <cstdint>

#include "store/base/bytes.h"
#include "store/base/clock.h"

namespace cake {

struct FlowOptions {
  unsigned first_transfers = 16;
  unsigned max_transfers = 48;
  uint64_t max_outstanding_bytes = 128 * kMiB;  // transfers times range, at most
};

// With more wanted than is under way, a quarter of a second is measured, the number raised by a
// half, and the raise kept if it brought a twentieth more bytes a second: so it climbs while that
// pays.  Later it tries a quarter more and a quarter fewer, in turn and some seconds apart, because
// links change and because what somebody waits for shares the link with all of them: fewer are kept
// if they bring as much but for a fortieth.  A 429 halves the number, a stall takes a quarter of
// it.
//
// Ranges are as large as it takes to spend a ninth of a transfer waiting for its first byte, but
// smaller while transfers are free: what is wanted now is divided among them.  No range is shorter
// than 20 ms.  Confined to its owner's lock.
class Flow {
 public:
  explicit Flow(FlowOptions options);

  enum class End {
    whole,
    limited,  // the server wants less (429)
    stalled,  // nothing more came
    other,    // cut, refused, given up: says nothing about how much the link bears
  };
  void started() { active_++; }
  // More is wanted than transfers() allows.
  void refused() { was_refused_ = true; }
  void received(uint64_t bytes, SteadyTime now);
  // `first_byte` after the start; `body` from there to the end, of `bytes`.
  void ended(End end, SteadyTime now);
  void measured(Millis first_byte, Millis body, uint64_t bytes);

  unsigned active() const { return active_; }
  unsigned transfers() const { return transfers_; }
  // For `wanted_bytes` when `queued` ranges wait already.
  uint64_t range_bytes(uint64_t wanted_bytes, size_t queued) const;

 private:
  void end_window(SteadyTime now);
  // Whether what was on trial is kept.
  bool end_trial(double rate, SteadyTime now);
  void begin_trial(double rate);
  void shrink(unsigned to, Millis hold, SteadyTime now);

  const FlowOptions options_;
  unsigned active_ = 0;
  unsigned transfers_;

  // The window that is measured.
  SteadyTime window_began_{};
  uint64_t window_bytes_ = 0;
  bool was_refused_ = false;
  bool is_settling_ = false;  // after a change: connections are being made

  // Another number that is on trial, or the next that will be.
  enum class Try { more, fewer };
  bool is_trial_ = false;
  Try try_ = Try::more;
  bool climbs_ = true;  // the last try of more paid: at once more, and by a half
  unsigned transfers_before_ = 0;
  double rate_before_ = 0;
  SteadyTime hold_until_{};
  SteadyTime shrunk_at_{};

  // Smoothed; 0 until measured.
  double first_byte_ms_ = 0;
  double bytes_per_ms_ = 0;  // of one transfer
};

}  // namespace cake
