#include "tools/traffic.h"

#include <charconv>

#include "fs/mount_record.h"
#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/base/log.h"

namespace cake {
namespace {

constexpr uint64_t kMaxFileBytes = 4096;
constexpr std::string_view kSuffix = ".traffic";

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string format_traffic(const Traffic& traffic) {
  return cat("fetched ", traffic.fetched_bytes, "\nopen ", traffic.open_files, "\nrate ",
             traffic.rate, "\nat ", traffic.at, "\n");
}

std::optional<Traffic> parse_traffic(std::string_view text) {
  Traffic traffic;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos) return std::nullopt;
    const std::optional<uint64_t> value = parse_number(line.substr(blank + 1));
    if (!value) return std::nullopt;
    const std::string_view key = line.substr(0, blank);
    if (key == "fetched") traffic.fetched_bytes = *value;
    if (key == "open") traffic.open_files = *value;
    if (key == "rate") traffic.rate = *value;
    if (key == "at") traffic.at = static_cast<int64_t>(*value);
  }
  return traffic;
}

std::string traffic_path(pid_t keeper) {
  return cat(runtime_directory(), "/", static_cast<int64_t>(keeper), kSuffix);
}

std::optional<Traffic> read_traffic(pid_t keeper) {
  const Result<std::string> text = read_text_file(traffic_path(keeper), kMaxFileBytes);
  if (!text) return std::nullopt;
  return parse_traffic(*text);
}

void remove_stale_traffic() {
  const std::string directory = runtime_directory();
  const Result<std::vector<std::string>> names = list_directory(directory);
  if (!names) return;
  for (const std::string& name : *names) {
    if (!name.ends_with(kSuffix)) continue;
    const auto pid = parse_number(name.substr(0, name.size() - kSuffix.size()));
    if (!pid || path_exists(cat("/proc/", *pid))) continue;
    const Status removed = remove_file(cat(directory, "/", name));
    if (!removed) log_debug(removed.error().message);
  }
}

TrafficReport::TrafficReport(pid_t keeper, bool goes_on, std::function<Counts()> count)
    : path_(traffic_path(keeper)), count_(std::move(count)) {
  if (const std::optional<Traffic> before = goes_on ? read_traffic(keeper) : std::nullopt)
    before_bytes_ = before->fetched_bytes;
  thread_.post(ThreadPool::Priority::background, [this] { run(); });
}

TrafficReport::~TrafficReport() {
  MutexLock lock(mutex_);
  is_stopping_ = true;
  changed_.notify_all();
}

bool TrafficReport::wait() {
  const SteadyTime until = steady_now() + kInterval;
  MutexLock lock(mutex_);
  while (!is_stopping_ && steady_now() < until) changed_.wait_until(mutex_, until);
  return !is_stopping_;
}

void TrafficReport::run() {
  Traffic written;
  bool has_written = false;
  uint64_t last_bytes = 0;
  SteadyTime last_at = steady_now();
  do {
    const Counts counts = count_();
    const double seconds = std::chrono::duration<double>(steady_now() - last_at).count();
    Traffic now;
    now.fetched_bytes = before_bytes_ + counts.fetched_bytes;
    now.open_files = counts.open_files;
    if (seconds > 0)
      now.rate =
          static_cast<uint64_t>(static_cast<double>(counts.fetched_bytes - last_bytes) / seconds);
    now.at = unix_now();
    last_bytes = counts.fetched_bytes;
    last_at = steady_now();
    const bool is_news = !has_written || now.fetched_bytes != written.fetched_bytes ||
                         now.open_files != written.open_files || now.rate != written.rate;
    if (!is_news) continue;
    const Status saved = write_file_atomically(path_, as_bytes(format_traffic(now)));
    if (!saved) log_debug(saved.error().with("cake ps").message);
    has_written = saved.ok();
    written = now;
  } while (wait());
}

}  // namespace cake
