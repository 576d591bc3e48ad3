#include "store/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>

#include "store/base/log_listener.h"
#include "store/base/without_controls.h"

namespace cake {

namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::error:
      return spdlog::level::err;
    case LogLevel::warn:
      return spdlog::level::warn;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::debug:
      return spdlog::level::debug;
  }
  return spdlog::level::info;
}

// Never destroyed: worker threads may log while the process exits.
std::shared_ptr<spdlog::logger>& logger() {
  static auto* instance = new std::shared_ptr<spdlog::logger>([] {
    auto made =
        std::make_shared<spdlog::logger>("cake", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::warn);
    made->set_pattern("cake: %l: %v");
    return made;
  }());
  return *instance;
}

// Never destroyed, like the logger.
std::atomic<const LogListener*>& log_listener() {
  static std::atomic<const LogListener*> instance{nullptr};
  return instance;
}

}  // namespace

void set_log_listener(LogListener listener) {
  log_listener().store(new LogListener(std::move(listener)), std::memory_order_release);
}

std::optional<LogLevel> parse_log_level(std::string_view name) {
  if (name == "error") return LogLevel::error;
  if (name == "warn" || name == "warning") return LogLevel::warn;
  if (name == "info") return LogLevel::info;
  if (name == "debug") return LogLevel::debug;
  return std::nullopt;
}

std::string_view log_level_name(LogLevel level) {
  switch (level) {
    case LogLevel::error:
      return "error";
    case LogLevel::warn:
      return "warn";
    case LogLevel::info:
      return "info";
    case LogLevel::debug:
      return "debug";
  }
  return "info";
}

Status open_log(std::string_view target, LogLevel level, std::string_view program) {
  std::shared_ptr<spdlog::logger> made;
  const std::string name(program);
  try {
    if (target == "stderr") {
      made =
          std::make_shared<spdlog::logger>(name, std::make_shared<spdlog::sinks::stderr_sink_mt>());
      made->set_pattern(name + ": %l: %v");
    } else if (target == "syslog") {
      made = std::make_shared<spdlog::logger>(
          name, std::make_shared<spdlog::sinks::syslog_sink_mt>(name, LOG_PID, LOG_DAEMON, false));
    } else {
      made = std::make_shared<spdlog::logger>(
          name, std::make_shared<spdlog::sinks::basic_file_sink_mt>(std::string(target)));
      made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %P %l: %v");
    }
  } catch (const spdlog::spdlog_ex& failure) {
    return Error{Errc::io, cat("log ", target, ": ", failure.what())};
  }
  made->set_level(to_spdlog(level));
  made->flush_on(spdlog::level::trace);
  logger() = std::move(made);
  return {};
}

void log_line(LogLevel level, std::string_view text) {
  const LogListener* listener = log_listener().load(std::memory_order_acquire);
  if (listener != nullptr && level <= LogLevel::info) (*listener)(level, text);
  // One event, one line: text from a hub must not forge a second one.
  if (logger()->should_log(to_spdlog(level)))
    logger()->log(to_spdlog(level), "{}", without_controls(text, ' '));
}

}  // namespace cake
