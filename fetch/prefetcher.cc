#include "fetch/prefetcher.h"

#include <algorithm>
#include <charconv>

#include "fetch/retry.h"
#include "store/base/log.h"

namespace cake {

namespace {

// Regions under way at a time: enough for the link, and little beside a reader's own readahead.
constexpr unsigned kMaxUnderWay = 8;
// How soon memory, disk and link are looked at again when they have no room.
constexpr Millis kRoomPoll{20};

std::string_view extension(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(dot);
}

std::optional<uint64_t> parse_shard_number(std::string_view digits) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::string> next_shard(std::string_view path) {
  constexpr std::string_view kOf = "-of-";
  const auto is_digit = [](char letter) { return letter >= '0' && letter <= '9'; };
  const size_t of = path.rfind(kOf);
  if (of == std::string_view::npos) return std::nullopt;
  size_t begin = of;
  while (begin > 0 && is_digit(path[begin - 1])) begin--;
  size_t end = of + kOf.size();
  while (end < path.size() && is_digit(path[end])) end++;
  const std::string_view number = path.substr(begin, of - begin);
  const auto current = parse_shard_number(number);
  const auto last = parse_shard_number(path.substr(of + kOf.size(), end - of - kOf.size()));
  if (!current || !last || *current >= *last) return std::nullopt;
  std::string next = std::to_string(*current + 1);
  if (next.size() < number.size()) next.insert(0, number.size() - next.size(), '0');
  return cat(path.substr(0, begin), next, path.substr(of));
}

void Prefetcher::started(const ContentRow& content) {
  const Prefetch mode = fetcher_->options().readahead.prefetch;
  if (mode != Prefetch::file && mode != Prefetch::repo) return;
  fetcher_->post(ThreadPool::Priority::background, [self = shared_from_this(), content, mode] {
    self->add({content.id, {0, content.bytes}}, false);
    if (mode == Prefetch::repo) self->add_repo(content);
  });
}

void Prefetcher::add_repo(const ContentRow& content) {
  const auto snapshot = names_.find_snapshot(content.repo, content.commit);
  if (!snapshot || !*snapshot) return;
  const std::vector<TreeEntry>& entries = (*snapshot)->entries();
  const auto first = static_cast<uint32_t>(
      std::upper_bound(entries.begin(), entries.end(), content.path,
                       [](const std::string& path, const TreeEntry& e) { return path < e.path; }) -
      entries.begin());
  // Those behind it first: shards are read by name.
  for (uint32_t i = 0; i < entries.size(); i++) {
    const uint32_t at = (first + i) % static_cast<uint32_t>(entries.size());
    if (extension(entries[at].path) != extension(content.path)) continue;
    if (names_.is_wanted && !names_.is_wanted(entries[at].path)) continue;
    add({(*snapshot)->content_id(at), {0, entries[at].bytes}}, false);
  }
}

void Prefetcher::wants_next(const ContentRow& content, ByteRange bytes) {
  const std::optional<std::string> next = next_shard(content.path);
  if (!next) return;
  fetcher_->post(ThreadPool::Priority::background, [self = shared_from_this(), repo = content.repo,
                                                    commit = content.commit, path = *next, bytes] {
    const auto snapshot = self->names_.find_snapshot(repo, commit);
    if (!snapshot || !*snapshot) return;
    const auto entry = (*snapshot)->find_entry(path);
    if (!entry) return;
    const uint64_t file_bytes = (*snapshot)->entries()[*entry].bytes;
    if (bytes.offset >= file_bytes) return;
    const uint64_t length = std::min(bytes.length, file_bytes - bytes.offset);
    self->add({(*snapshot)->content_id(*entry), {bytes.offset, length}}, true);
  });
}

void Prefetcher::add(Job job, bool is_urgent) {
  if (job.bytes.length == 0) return;
  {
    MutexLock lock(mutex_);
    // Whole files once; what is urgent comes in parts, each once.
    if (!is_urgent && !started_.insert(job.content).second) return;
    if (is_urgent)
      jobs_.push_front(job);
    else
      jobs_.push_back(job);
  }
  pump();
}

void Prefetcher::pump() {
  // Whole regions, as claims are, where as much may be outstanding at all.
  const uint64_t most = std::min(Claims::kRegionBytes, fetcher_->max_readahead());
  while (fetcher_->upstream() != nullptr && most > 0) {
    Job part;
    {
      MutexLock lock(mutex_);
      if (jobs_.empty() || under_way_ >= kMaxUnderWay) return;
      if (fetcher_->readahead_limit() >= most) {
        Job& job = jobs_.front();
        const uint64_t region_end =
            (job.bytes.offset / Claims::kRegionBytes + 1) * Claims::kRegionBytes;
        const uint64_t length = std::min({job.bytes.length, region_end - job.bytes.offset, most});
        part = {job.content, {job.bytes.offset, length}};
        job.bytes = {job.bytes.offset + length, job.bytes.length - length};
        if (job.bytes.length == 0) jobs_.pop_front();
        under_way_++;
      }
    }
    if (part.bytes.length == 0) {
      pump_soon(kRoomPoll);
      return;
    }
    start(part);
  }
}

void Prefetcher::pump_soon(Millis delay) {
  Upstream* const target = fetcher_->upstream();
  if (target == nullptr) return;
  {
    MutexLock lock(mutex_);
    if (std::exchange(is_pump_due_, true)) return;
  }
  target->after(delay, [self = shared_from_this()] {
    self->fetcher_->post(ThreadPool::Priority::background, [self] {
      {
        MutexLock lock(self->mutex_);
        self->is_pump_due_ = false;
      }
      self->pump();
    });
  });
}

void Prefetcher::start(const Job& job) {
  const Result<std::shared_ptr<FileReader>> reader = names_.open(job.content);
  if (!reader) {
    log_warn(reader.error().with("fetching ahead").message);
    ended(job, reader.error());
    return;
  }
  (*reader)->prefetch(job.bytes,
                      [self = shared_from_this(), job](const Result<std::monostate>& result) {
                        self->ended(job, result ? Status() : Status(result.error()));
                      });
}

void Prefetcher::ended(const Job& job, const Status& status) {
  Millis delay{0};
  {
    MutexLock lock(mutex_);
    under_way_--;
    if (status.ok()) {
      failures_ = 0;
    } else if (is_transient(status.error().code)) {
      // Not lost, only later: the hub may be down.
      jobs_.push_front(job);
      delay = FileTrouble::retry_delay(++failures_);
    }
  }
  pump_soon(delay);
}

}  // namespace cake
