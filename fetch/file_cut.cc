#include "fetch/file_cut.h"

#include <algorithm>

#include "fetch/retry.h"
#include "store/base/log.h"

namespace cake {

namespace {

// Holds the whole header of nearly every safetensors file (97 % need less than 100 kB), so that one
// request finds the cuts.
constexpr uint64_t kHeadProbeBytes = 128 * kKiB;

}  // namespace

// The head of a file that is not cut yet, growing until the cutter can decide.
struct FileCut::HeadFetch final : RangeSink, std::enable_shared_from_this<HeadFetch> {
  explicit HeadFetch(std::shared_ptr<FileCut> owner) : cut(std::move(owner)) {}

  bool on_bytes(uint64_t offset, ByteSpan bytes) override {
    if (offset != head.size()) return false;
    // Grows with what has really come: a hostile length allocates nothing.
    head.insert(head.end(), bytes.begin(), bytes.end());
    return !cut->fetcher_.is_stopping();
  }
  void on_end(Status status) override {
    // Parsing may take a while: not on the upstream's thread.
    const bool is_posted = cut->fetcher_.post(
        ThreadPool::Priority::demand,
        [self = shared_from_this(), status] { self->cut->head_ended(self, status); });
    if (!is_posted) cut->finish(Error{Errc::cancelled, "unmounting"});
  }

  const std::shared_ptr<FileCut> cut;
  Buffer head;
  uint64_t wanted = 0;
  FileAddress address;  // that was asked
  unsigned attempts = 0;
};

void FileCut::find(const std::shared_ptr<FileCut>& self, Done<std::monostate> then) {
  if (self->is_known()) {
    then(std::monostate{});
    return;
  }
  if (const std::optional<Error> remembered = self->trouble_.remembered()) {
    then(*remembered);
    return;
  }
  bool is_known = false;
  {
    MutexLock lock(self->mutex_);
    is_known = self->is_known();
    if (!is_known) {
      self->waiters_.push_back(std::move(then));
      if (std::exchange(self->is_cutting_, true)) return;
    }
  }
  if (is_known) {
    then(std::monostate{});  // NOLINT(bugprone-use-after-move): moved only when it is not
    return;
  }
  const Result<bool> is_ready = self->load_or_cut();
  if (!is_ready)
    self->finish(is_ready.error());
  else if (*is_ready)
    self->finish({});
  else
    self->fetch_head(std::make_shared<HeadFetch>(self));
}

Result<bool> FileCut::load_or_cut() {
  std::optional<Recipe> stored = CAKE_TRY(load_recipe(fetcher_.store().index(), content_));
  if (stored) {
    recipe_ = std::move(stored);
    return true;
  }
  const Cutter wanted = wanted_cutter(content_.path);
  if (head_bytes_needed(wanted, {}, content_.bytes) != 0) return false;
  CAKE_TRY(store_cut(cut_file(wanted, {}, content_.bytes), {}));
  return true;
}

Status FileCut::store_cut(const Cut& cut, ByteSpan head) {
  CAKE_TRY(begin_recipe(fetcher_.store(), content_, cut, head));
  // Another process may have been first: what is stored is what counts, for all.
  std::optional<Recipe> stored = CAKE_TRY(load_recipe(fetcher_.store().index(), content_));
  if (!stored) return Error{Errc::corrupt, cat("the recipe of ", content_.path, " vanished")};
  recipe_ = std::move(stored);
  return {};
}

void FileCut::finish(const Status& status) {
  std::vector<Done<std::monostate>> waiters;
  {
    MutexLock lock(mutex_);
    is_cutting_ = false;
    if (status.ok()) is_known_.store(true, std::memory_order_release);
    waiters.swap(waiters_);
  }
  for (const auto& waiter : waiters) {
    if (status.ok())
      waiter(std::monostate{});
    else
      waiter(status.error());
  }
}

void FileCut::fetch_head(const HeadPtr& head) {
  Upstream* const target = fetcher_.upstream();
  const uint64_t have = head->head.size();
  if (target == nullptr) {
    finish(Error{Errc::offline, cat(trouble_.describe({0, content_.bytes}),
                                    ": not in the store, and the mount is offline")});
    return;
  }
  const uint64_t needed =
      head_bytes_needed(wanted_cutter(content_.path), head->head, content_.bytes);
  head->wanted = std::min(std::max(needed, kHeadProbeBytes), content_.bytes);
  const Deadline deadline = fetcher_.options().attempt_deadline();
  head->address = places_.address();
  target->read(head->address, {have, head->wanted - have}, true, deadline, head);
}

void FileCut::head_ended(const HeadPtr& head, const Status& status) {
  if (head->head.size() > head->wanted) head->head.resize(head->wanted);
  const uint64_t have = head->head.size();
  if (!status.ok() || have < head->wanted) {
    retry_head(head,
               status.ok() ? Error{Errc::upstream, "the answer ended early"} : status.error());
    return;
  }
  fetcher_.health().succeeded();
  if (head_bytes_needed(wanted_cutter(content_.path), head->head, content_.bytes) > have)
    fetch_head(head);
  else
    cut_head(head->head);
}

void FileCut::retry_head(const HeadPtr& head, const Error& error) {
  fetcher_.health().failed(error.code);
  if (!is_refusal(error.code)) return retry_head_there(head, error);
  places_.leave(head->address, [self = head->cut, head, error](bool has_other) {
    if (has_other)
      self->fetch_head(head);
    else
      self->retry_head_there(head, error);
  });
}

void FileCut::retry_head_there(const HeadPtr& head, const Error& error) {
  const ByteRange bytes{head->head.size(), head->wanted - head->head.size()};
  if (!trouble_.should_retry(error, ++head->attempts)) {
    finish(trouble_.note_failure(error, bytes));
    return;
  }
  trouble_.note_retry(error, bytes);
  fetcher_.post_after(FileTrouble::retry_delay(head->attempts),
                      [head](const Result<std::monostate>& has_come) {
                        if (has_come)
                          head->cut->fetch_head(head);
                        else
                          head->cut->finish(has_come.error());
                      });
}

void FileCut::cut_head(const Buffer& head) {
  const Cut cut = cut_file(wanted_cutter(content_.path), head, content_.bytes);
  const std::string name = trouble_.describe({0, content_.bytes});
  if (!cut.refusal.empty()) log_info(cat(name, ": served as opaque bytes: ", cut.refusal));
  const Status stored = store_cut(cut, head);
  if (!stored.ok()) {
    log_error(stored.error().with(name).message);
    finish(stored);
    return;
  }
  on_head_(head);
  finish({});
}

}  // namespace cake
