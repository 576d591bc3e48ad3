#include "fetch/proof.h"

#include <utility>

#include "store/base/log.h"
#include "store/base/priority.h"

namespace cake {

namespace {

// A region that no file has: byte 2^24 - 1 of a content's claims (store.cc).
constexpr uint64_t kProofRegion = (uint64_t{1} << 24) - 1;
// At a time; the rest comes in the next round.
constexpr size_t kFilesARound = 64;
constexpr uint64_t kWindowBytes = 4 * kMiB;
constexpr Millis kStopPoll{100};
// Between two chunks while a load is under way: some 30 MB/s, a twentieth of a core.
constexpr Millis kWayGiven{30};

std::string describe(const ContentRow& content) {
  return cat(content.repo.id, "@", content.commit.substr(0, 12), "/", content.path);
}

}  // namespace

FileProof::FileProof(Client& client, Metrics& metrics, ProofOptions options, OnRejected on_rejected)
    : client_(client),
      options_(options),
      on_rejected_(std::move(on_rejected)),
      stored_(metrics.counter("store.chunks_stored")),
      deduplicated_(metrics.counter("store.chunks_deduplicated")),
      read_(metrics.counter("fetch.chunks_read")),
      files_verified_(metrics.counter("fetch.files_verified")),
      files_rejected_(metrics.counter("fetch.files_rejected")) {
  thread_.post(ThreadPool::Priority::background, [this] { run(); });
}

FileProof::~FileProof() {
  MutexLock lock(mutex_);
  is_stopping_ = true;
  changed_.notify_all();
}

void FileProof::wake() {
  MutexLock lock(mutex_);
  is_woken_ = true;
  changed_.notify_all();
}

bool FileProof::is_stopping() const {
  MutexLock lock(mutex_);
  return is_stopping_;
}

bool FileProof::wait(Millis interval) {
  const SteadyTime until = steady_now() + interval;
  MutexLock lock(mutex_);
  while (!is_stopping_ && !is_woken_ && steady_now() < until) changed_.wait_until(mutex_, until);
  is_woken_ = false;
  return !is_stopping_;
}

void FileProof::give_way() {
  const uint64_t moved = chunks_stored() + read_.value();
  if (std::exchange(moved_before_, moved) == moved) return;
  const SteadyTime until = steady_now() + kWayGiven;
  MutexLock lock(mutex_);
  while (!is_stopping_ && steady_now() < until) changed_.wait_until(mutex_, until);
}

uint64_t FileProof::chunks_stored() const {
  return stored_.value() + deduplicated_.value();
}

void FileProof::run() {
  make_this_thread_nice();
  SteadyTime looked_at{};  // long ago: what was complete before comes first
  uint64_t seen = UINT64_MAX;
  while (wait(options_.busy_interval)) {
    const uint64_t now = chunks_stored();
    const bool is_due =
        now != seen || proved_to_ != 0 || steady_now() - looked_at >= options_.quiet_interval;
    if (!is_due) continue;
    seen = now;
    looked_at = steady_now();
    const Status proved = prove_some();
    if (!proved && proved.error().code != Errc::cancelled)
      log_warn(proved.error().with("comparing whole files with their hashes").message);
  }
}

// Goes on where the last round ended, since some files stay on the list for as long as parts of
// them are evicted.
Status FileProof::prove_some() {
  const std::vector<RowId> ids =
      CAKE_TRY(client_.store().index().list_unverified(proved_to_, kFilesARound));
  proved_to_ = ids.size() < kFilesARound ? 0 : ids.back();
  for (const RowId id : ids) {
    if (is_stopping()) return {};
    const Result<bool> claimed = client_.store().claims().try_claim(id, kProofRegion);
    if (!CAKE_TRY(Result<bool>(claimed))) continue;  // another process is at it
    const Status proved = prove(id);
    CAKE_TRY(client_.store().claims().release(id, kProofRegion));
    if (proved) continue;
    if (proved.error().code == Errc::cancelled) return proved;
    // Of this file: the others can be proved all the same.
    log_warn(proved.error().with(cat("comparing content ", id, " with its hash")).message);
  }
  return {};
}

Status FileProof::prove(RowId id) {
  const std::optional<ContentRow> content = CAKE_TRY(client_.store().index().find_content(id));
  if (!content || content->verified || content->mismatched) return {};
  VerifyOptions options;
  options.checks_digests = false;  // the hash of the whole covers them
  options.only_whole = true;
  options.should_stop = [this] {
    give_way();
    return is_stopping();
  };
  const ContentCheck check = CAKE_TRY(check_content(client_.store(), *content, options));
  if (check.state == ContentCheck::State::verified) files_verified_.add();
  if (check.state != ContentCheck::State::mismatch) return {};
  files_rejected_.add();
  if (!rejected_.insert(id).second) {
    log_error(cat(describe(*content),
                  ": its hash is not the one that the hub names, again; it is served as fetched "
                  "and marked, see cake verify"));
    return {};
  }
  log_error(cat(describe(*content),
                ": its hash is not the one that the hub names; dropped, and fetched again"));
  return replace(*content);
}

Status FileProof::replace(const ContentRow& content) {
  CAKE_TRY(reject_content(client_.store(), content));
  client_.forget(content.id);
  on_rejected_(content.id, [this] { return is_stopping(); });
  return fetch_again(content);
}

Status FileProof::fetch_again(const ContentRow& content) {
  if (client_.is_offline()) return {};
  CAKE_TRY(fetch_range(client_, content.id, {0, content.bytes}, [this] { return is_stopping(); }));
  return client_.store().chunks().flush();
}

Status fetch_range(Client& client, RowId content, ByteRange range,
                   const std::function<bool()>& should_stop) {
  struct Answer {
    Mutex mutex;
    CondVar changed;
    std::optional<Status> status GUARDED_BY(mutex);
  };
  const std::shared_ptr<FileReader> reader = CAKE_TRY(client.open(content));
  while (range.length > 0) {
    const uint64_t length = std::min(range.length, kWindowBytes);
    const auto answer = std::make_shared<Answer>();
    ReadOptions options;
    options.drives_readahead = false;
    reader->read(range.offset, length, options, [answer](const Result<FileReader::Slices>& slices) {
      MutexLock lock(answer->mutex);
      answer->status = slices ? Status() : Status(slices.error());
      answer->changed.notify_all();
    });
    MutexLock lock(answer->mutex);
    while (!answer->status) {
      if (should_stop && should_stop()) return Error{Errc::cancelled, "the fetch was ended"};
      answer->changed.wait_until(answer->mutex, steady_now() + kStopPoll);
    }
    CAKE_TRY(Status(*answer->status));
    range = {range.offset + length, range.length - length};
  }
  return {};
}

}  // namespace cake
