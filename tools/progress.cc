#include "tools/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <ostream>

#include "store/base/bytes.h"
#include "tools/table.h"

namespace cake {
namespace {

using Json = nlohmann::ordered_json;

// More files than that at once are summed up in the last line only.
constexpr size_t kMaxLines = 8;
constexpr size_t kBarWidth = 20;
// Narrower terminals get no bar.
constexpr size_t kMinWidthForBar = 100;

double share(const ProgressLine& line) {
  if (line.total_bytes == 0) return 1;
  return static_cast<double>(std::min(line.done_bytes, line.total_bytes)) /
         static_cast<double>(line.total_bytes);
}

std::string bar(const ProgressLine& line) {
  const auto full = static_cast<size_t>(share(line) * kBarWidth);
  return "[" + std::string(full, '#') + std::string(kBarWidth - full, '-') + "]";
}

void write_line(std::ostream& err, const Json& json) {
  err << json.dump(-1, ' ', true, Json::error_handler_t::replace) << '\n' << std::flush;
}

Json to_json(const ProgressLine& line) {
  return {{"done", line.done_bytes}, {"total", line.total_bytes}};
}

}  // namespace

std::string progress_text(const ProgressLine& line, double rate,
                          std::optional<double> dedupe_percent) {
  const uint64_t done = std::min(line.done_bytes, line.total_bytes);
  std::string text = cat(format_size(done), "/", format_size(line.total_bytes), "  ",
                         static_cast<unsigned>(100 * share(line)), "%");
  std::array<char, 64> part{};
  if (rate >= 1) {
    std::snprintf(part.data(), part.size(), "  %.*fMB/s", rate < 10e6 ? 1 : 0, rate / 1e6);
    text += part.data();
  }
  if (dedupe_percent) text += cat("  dedupe ", std::lround(*dedupe_percent), "%");
  if (rate < 1) return text;
  const double seconds = static_cast<double>(line.total_bytes - done) / rate;
  const auto left = static_cast<uint64_t>(std::llround(std::min(seconds, 3.6e6)));
  std::snprintf(part.data(), part.size(), "  eta %llu:%02llu:%02llu",
                static_cast<unsigned long long>(left / 3600),
                static_cast<unsigned long long>(left / 60 % 60),
                static_cast<unsigned long long>(left % 60));
  return text + part.data();
}

size_t stderr_width() {
  winsize size{};
  if (isatty(STDERR_FILENO) == 0 || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

double Progress::Rate::update(SteadyTime now, uint64_t bytes) {
  if (at_ == SteadyTime{}) {
    at_ = now;
    bytes_ = bytes;
  } else if (now - at_ >= Millis(1000)) {
    const double seconds = std::chrono::duration<double>(now - at_).count();
    const double latest = static_cast<double>(bytes - std::min(bytes, bytes_)) / seconds;
    rate_ = rate_ == 0 ? latest : 0.7 * rate_ + 0.3 * latest;
    at_ = now;
    bytes_ = bytes;
  }
  return rate_;
}

Progress::Progress(std::ostream& err, ProgressStyle style, size_t width)
    : err_(err), style_(style), width_(width) {}

void Progress::update(const ProgressState& state) {
  if (style_ == ProgressStyle::none) return;
  const SteadyTime now = steady_now();
  const double rate = rate_.update(now, state.total.done_bytes);
  const Millis every = style_ == ProgressStyle::bars     ? kRedraw
                       : style_ == ProgressStyle::events ? kEvent
                                                         : kLine;
  if (now - drawn_ < every) return;
  drawn_ = now;
  draw(state, rate, false);
}

void Progress::finish_file(const std::string& path) {
  if (style_ == ProgressStyle::events)
    write_line(err_, {{"event", "file"}, {"path", path}, {"state", "complete"}});
}

void Progress::finish(const ProgressState& state) {
  if (style_ == ProgressStyle::none) return;
  const double seconds = std::chrono::duration<double>(steady_now() - started_).count();
  const double rate = seconds > 0.01 ? static_cast<double>(state.total.done_bytes) / seconds : 0;
  draw(state, rate, true);
}

void Progress::write_event(const char* name, const ProgressState& state, double rate) {
  Json json = {{"event", name}};
  json.update(to_json(state.total));
  json["rate"] = static_cast<uint64_t>(rate);
  json["dedupe_percent"] = state.dedupe_percent ? Json(*state.dedupe_percent) : Json(nullptr);
  json["files"] = Json::array();
  for (const ProgressLine& line : state.files) {
    Json file = {{"path", line.label}};
    file.update(to_json(line));
    json["files"].push_back(std::move(file));
  }
  write_line(err_, json);
}

void Progress::draw(const ProgressState& state, double rate, bool is_last) {
  if (style_ == ProgressStyle::events)
    return write_event(is_last ? "end" : "progress", state, rate);
  if (style_ == ProgressStyle::lines) {
    err_ << printable(state.total.label) << "  "
         << progress_text(state.total, rate, state.dedupe_percent) << '\n'
         << std::flush;
    return;
  }
  std::string text;
  if (lines_ > 0) text += cat("\x1b[", lines_, "A");
  size_t label_width = state.total.label.size();
  const size_t shown = is_last ? 0 : std::min(state.files.size(), kMaxLines);
  for (size_t i = 0; i < shown; i++)
    label_width = std::max(label_width, std::min<size_t>(state.files[i].label.size(), 48));
  const auto add = [&](const ProgressLine& line, const std::string& facts) {
    std::string label = printable(line.label);
    if (label.size() > label_width) label = "…" + label.substr(label.size() - label_width + 1);
    std::string row = label;
    if (row.size() < label_width + 2) row.append(label_width + 2 - row.size(), ' ');
    if (width_ >= kMinWidthForBar) row += bar(line) + "  ";
    row += facts;
    // A row that wraps would be one more than is moved up.
    if (width_ > 1 && row.size() >= width_) row.resize(width_ - 1);
    text += "\r\x1b[K" + row + "\n";
  };
  for (size_t i = 0; i < shown; i++) add(state.files[i], progress_text(state.files[i], 0));
  add(state.total, progress_text(state.total, rate, state.dedupe_percent));
  text += "\x1b[J";
  lines_ = shown + 1;
  err_ << text << std::flush;
}

}  // namespace cake
