#include "fetch/file_trouble.h"

#include <random>

#include "fetch/retry.h"
#include "store/base/log.h"

namespace cake {

namespace {

constexpr BackoffOptions kBackoff{Millis(100), Millis(5'000)};
// A reader who waits is told why, in the log, this often.
constexpr Millis kTellEvery{60'000};
// A failure that was given to a reader is the answer to the next ones, for a while.
constexpr Millis kFailureMemory{5'000};

// Corrupt: bytes that are not those known; the next answer may be right.
bool is_worth_retrying(Errc code) {
  return is_transient(code) || code == Errc::corrupt;
}

}  // namespace

std::string FileTrouble::describe(ByteRange bytes) const {
  return cat(content_.repo.id, "@", content_.commit.substr(0, 12), "/", content_.path, " bytes ",
             bytes.offset, "-", bytes.end());
}

bool FileTrouble::should_retry(const Error& error, unsigned attempts) const {
  if (fetcher_.upstream() == nullptr || !is_worth_retrying(error.code)) return false;
  const FetchOptions& options = fetcher_.options();
  return options.is_hard || attempts <= options.retrans;
}

Millis FileTrouble::retry_delay(unsigned attempts) {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return backoff_delay(kBackoff, attempts, generator());
}

void FileTrouble::note_retry(const Error& error, ByteRange bytes) {
  {
    MutexLock lock(mutex_);
    last_error_ = cat(errc_name(error.code), ": ", error.message);
    if (steady_now() < next_log_) return;
    next_log_ = steady_now() + kTellEvery;
  }
  log_warn(cat(describe(bytes), ": ", error.message, "; trying again"));
}

Error FileTrouble::note_failure(const Error& error, ByteRange bytes) {
  Error full = error.with(describe(bytes));
  // The kernel asks for each page of a failed read again: one line and one request serve them all.
  const bool is_answer = is_refusal(error.code);
  bool is_new = false;
  {
    MutexLock lock(mutex_);
    std::string text = cat(errc_name(error.code), ": ", error.message);
    is_new = told_failure_ != text || steady_now() >= told_until_;
    if (is_new) told_until_ = steady_now() + kTellEvery;
    told_failure_ = text;
    last_error_ = std::move(text);
    if (is_answer || (!fetcher_.options().is_hard && is_worth_retrying(error.code))) {
      remembered_ = full;
      remembered_until_ = steady_now() + kFailureMemory;
      has_remembered_.store(true, std::memory_order_release);
    }
  }
  if (is_new && error.code != Errc::cancelled && fetcher_.options().logs_failures)
    log_error(full.message);
  return full;
}

std::optional<Error> FileTrouble::remembered() const {
  if (!has_remembered_.load(std::memory_order_acquire)) return std::nullopt;
  MutexLock lock(mutex_);
  if (steady_now() >= remembered_until_) return std::nullopt;
  return remembered_;
}

void FileTrouble::forget() {
  if (!has_remembered_.load(std::memory_order_acquire)) return;
  MutexLock lock(mutex_);
  remembered_.reset();
  has_remembered_.store(false, std::memory_order_release);
}

std::optional<std::string> FileTrouble::last_error() const {
  MutexLock lock(mutex_);
  return last_error_;
}

}  // namespace cake
