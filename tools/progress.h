// How far a transfer is, on stderr: a line that is redrawn on a terminal, a line every 5 s
// elsewhere.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "store/base/clock.h"

namespace cake {

// "3.1G/4.9G  63%  412MB/s  eta 0:00:04"; `rate` in bytes a second, 0: not known.
std::string progress_text(uint64_t done_bytes, uint64_t total_bytes, double rate);

// Confined to one thread: it is told the counts, and decides when to draw.
class Progress {
 public:
  static constexpr Millis kRedraw{200};
  static constexpr Millis kLine{5000};

  Progress(std::ostream& err, bool is_terminal, bool is_shown);
  // `label` is the file that is being worked on.
  void update(const std::string& label, uint64_t done_bytes, uint64_t total_bytes);
  // Draws the last state and ends the line.
  void finish(const std::string& label, uint64_t done_bytes, uint64_t total_bytes);

 private:
  void draw(const std::string& label, uint64_t done_bytes, uint64_t total_bytes);

  std::ostream& err_;
  const bool is_terminal_;
  const bool is_shown_;
  const SteadyTime started_ = steady_now();
  SteadyTime drawn_ = started_;
  // The rate is that of the last few seconds.
  SteadyTime rate_at_ = started_;
  uint64_t rate_bytes_ = 0;
  double rate_ = 0;
  bool has_drawn_ = false;
};

}  // namespace cake
