// How far a transfer is, on stderr: a line a file and their sum, redrawn, on a terminal; a line
// every 5 s elsewhere; events for programs.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "store/base/clock.h"

namespace cake {

struct ProgressLine {
  std::string label;
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
};

struct ProgressState {
  std::vector<ProgressLine> files;  // being worked on
  ProgressLine total;
  // Of the bytes that came, those that were in the store already, under another name.
  std::optional<double> dedupe_percent;
};

// "3.1G/4.9G  63%  412MB/s  dedupe 38%  eta 0:00:04"; `rate` in bytes a second, 0: not known.
std::string progress_text(const ProgressLine& line, double rate,
                          std::optional<double> dedupe_percent = std::nullopt);

enum class ProgressStyle {
  none,
  bars,    // a terminal
  lines,   // anywhere else
  events,  // a JSON object a line: start, progress, file, end
};

// Confined to one thread: it is told the counts, and decides when to draw.
class Progress {
 public:
  static constexpr Millis kRedraw{200};
  static constexpr Millis kEvent{1000};
  static constexpr Millis kLine{5000};

  // `width`: columns of the terminal, 0 when not known.
  Progress(std::ostream& err, ProgressStyle style, size_t width = 0);
  void update(const ProgressState& state);
  // A file is complete.
  void finish_file(const std::string& path);
  // Draws the last state and ends the line.
  void finish(const ProgressState& state);

 private:
  // The rate of the last few seconds.
  class Rate {
   public:
    double update(SteadyTime now, uint64_t bytes);

   private:
    SteadyTime at_{};
    uint64_t bytes_ = 0;
    double rate_ = 0;
  };
  void draw(const ProgressState& state, double rate, bool is_last);
  void write_event(const char* name, const ProgressState& state, double rate);

  std::ostream& err_;
  const ProgressStyle style_;
  const size_t width_;
  const SteadyTime started_ = steady_now();
  SteadyTime drawn_ = started_;
  Rate rate_;
  size_t lines_ = 0;  // on the terminal, above the cursor
};

// Columns of the terminal on stderr, 0 when it is none.
size_t stderr_width();

}  // namespace cake
