#include "tools/progress.h"

#include <array>
#include <cstdio>
#include <ostream>

#include "store/base/bytes.h"
#include "tools/table.h"

namespace cake {

std::string progress_text(uint64_t done_bytes, uint64_t total_bytes, double rate) {
  const uint64_t done = std::min(done_bytes, total_bytes);
  const unsigned percent = total_bytes == 0
                               ? 100
                               : static_cast<unsigned>(100.0 * static_cast<double>(done) /
                                                       static_cast<double>(total_bytes));
  std::string text = cat(format_size(done), "/", format_size(total_bytes), "  ", percent, "%");
  if (rate < 1) return text;
  std::array<char, 64> rest{};
  const double seconds = static_cast<double>(total_bytes - done) / rate;
  const auto left = static_cast<uint64_t>(std::min(seconds, 3.6e6) + 0.5);
  std::snprintf(rest.data(), rest.size(), "  %.*fMB/s  eta %llu:%02llu:%02llu", rate < 10e6 ? 1 : 0,
                rate / 1e6, static_cast<unsigned long long>(left / 3600),
                static_cast<unsigned long long>(left / 60 % 60),
                static_cast<unsigned long long>(left % 60));
  return text + rest.data();
}

Progress::Progress(std::ostream& err, bool is_terminal, bool is_shown)
    : err_(err), is_terminal_(is_terminal), is_shown_(is_shown) {}

void Progress::update(const std::string& label, uint64_t done_bytes, uint64_t total_bytes) {
  const SteadyTime now = steady_now();
  if (!is_shown_ || now - drawn_ < (is_terminal_ ? kRedraw : kLine)) return;
  drawn_ = now;
  if (now - rate_at_ >= Millis(1000)) {
    const double seconds = std::chrono::duration<double>(now - rate_at_).count();
    const double latest = static_cast<double>(done_bytes - rate_bytes_) / seconds;
    rate_ = rate_ == 0 ? latest : 0.7 * rate_ + 0.3 * latest;
    rate_at_ = now;
    rate_bytes_ = done_bytes;
  }
  draw(label, done_bytes, total_bytes);
}

void Progress::finish(const std::string& label, uint64_t done_bytes, uint64_t total_bytes) {
  if (!is_shown_) return;
  const double seconds = std::chrono::duration<double>(steady_now() - started_).count();
  rate_ = seconds > 0.01 ? static_cast<double>(done_bytes) / seconds : 0;
  draw(label, done_bytes, total_bytes);
  if (is_terminal_ && has_drawn_) err_ << '\n' << std::flush;
}

void Progress::draw(const std::string& label, uint64_t done_bytes, uint64_t total_bytes) {
  has_drawn_ = true;
  const std::string line =
      cat(printable(label), "  ", progress_text(done_bytes, total_bytes, rate_));
  if (is_terminal_)
    err_ << "\r\x1b[K" << line << std::flush;
  else
    err_ << line << '\n' << std::flush;
}

}  // namespace cake
