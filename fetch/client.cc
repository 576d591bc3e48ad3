#include "fetch/client.h"

#include <algorithm>

#include "fetch/once_done.h"
#include "fetch/prefetcher.h"
#include "fetch/retry.h"
#include "store/base/log.h"
#include "store/twin.h"

namespace cake {

namespace {

constexpr size_t kMaxRemembered = 10'000;
// The kernel lets one process at a time look a name up; those who waited behind one that failed are
// not to wait for the hub again, each in turn.  What fails faster than this is asked again.
constexpr Millis kNameFailureMemory{200};
// How long a hub may take to say whether a name that is known has moved.
constexpr Millis kKnownNamePatience{3'000};
constexpr Millis kLogEvery{60'000};
constexpr size_t kMaxRecentSnapshots = 64;
// Readers kept beyond those in use elsewhere; each costs about 80 bytes an extent touched.
constexpr size_t kMaxReaders = 1'024;

std::string full_name(const std::pair<RepoName, std::string>& key) {
  return cat(key.first.type == RepoType::model ? "" : cat(repo_type_plural(key.first.type), "/"),
             key.first.id, key.second.empty() ? "" : "@", key.second);
}

Error not_told_in_time(const std::string& name) {
  return {Errc::timeout, name + ": the hub has not told all of it yet; it is still being asked"};
}

}  // namespace

Client::Client(Store& store, std::string source, std::unique_ptr<Upstream> upstream,
               ClientOptions options, Metrics& metrics)
    : store_(store),
      source_(std::move(source)),
      options_(options),
      upstream_(std::move(upstream)),
      fetcher_(std::make_shared<Fetcher>(store, upstream_.get(), options.fetch, metrics)),
      prefetcher_(std::make_shared<Prefetcher>(
          fetcher_, Prefetcher::Names{[this](RowId content) { return open(content); },
                                      [this](const RepoName& repo, const std::string& commit) {
                                        return find_known_snapshot(repo, commit);
                                      },
                                      options.prefetches})) {}

Client::~Client() {
  stop();
}

void Client::stop() {
  fetcher_->stop();
  const Status flushed = store_.chunks().flush();
  if (!flushed.ok()) log_error(flushed.error().with("writing the store").message);
}

// --- names ---

std::optional<Error> Client::remembered_failure(const NameKey& key) {
  MutexLock lock(mutex_);
  const auto found = failures_.find(key);
  if (found == failures_.end()) return std::nullopt;
  if (found->second.until > steady_now()) return found->second.error;
  failures_.erase(found);
  return std::nullopt;
}

Result<Client::SnapshotPtr> Client::snapshot_of(RowId repo_row, const std::string& commit) {
  {
    MutexLock lock(mutex_);
    const auto found = live_.find({repo_row, commit});
    if (found != live_.end())
      if (SnapshotPtr live = found->second.lock()) return live;
  }
  SnapshotPtr snapshot = CAKE_TRY(store_.index().find_snapshot(repo_row, commit));
  if (!snapshot) return snapshot;
  MutexLock lock(mutex_);
  auto& slot = live_[{repo_row, commit}];
  if (SnapshotPtr other = slot.lock()) return other;
  slot = snapshot;
  recent_.push_front(snapshot);
  if (recent_.size() > kMaxRecentSnapshots) recent_.pop_back();
  return snapshot;
}

Result<Client::SnapshotPtr> Client::find_known_snapshot(const RepoName& repo,
                                                        const std::string& revision) {
  const std::optional<RepoRow> row = CAKE_TRY(store_.index().find_repo(source_, repo));
  if (!row) return SnapshotPtr();
  std::string commit = revision;
  if (!is_commit(revision)) {
    const std::optional<RefRow> ref = CAKE_TRY(store_.index().find_ref(row->id, revision));
    if (!ref) return SnapshotPtr();
    commit = ref->commit;
  }
  return snapshot_of(row->id, commit);
}

void Client::find_snapshot(const RepoName& repo, const std::string& revision, bool ask_hub,
                           Deadline deadline, Done<SnapshotPtr> done) {
  const NameKey key{repo, revision};
  if (!is_valid_repo_id(repo.id) || !is_valid_revision(revision)) {
    done(Error{Errc::not_found, cat(full_name(key), " is not a name a hub can have")});
    return;
  }
  Result<SnapshotPtr> known = find_known_snapshot(repo, revision);
  if (!known) {
    done(known.error());
    return;
  }
  bool is_due = ask_hub && !is_commit(revision);
  if (*known && !is_due && options_.refresh_s >= 0 && !is_commit(revision)) {
    const auto row = store_.index().find_repo(source_, repo);
    if (row && *row) {
      const auto ref = store_.index().find_ref((*row)->id, revision);
      is_due = ref && *ref && unix_now() - (*ref)->resolved_at >= options_.refresh_s;
    }
  }
  if (*known && (!is_due || is_offline())) {
    done(std::move(known));
    return;
  }
  if (is_offline()) {
    done(Error{Errc::offline,
               cat(full_name(key), " is not in the store, and the network is off (offline=yes)")});
    return;
  }
  const bool may_use_known = *known && options_.offline != Offline::no;
  if (!ask_hub) {
    if (const std::optional<Error> failure = remembered_failure(key)) {
      done(may_use_known ? std::move(known) : failure->with("asked a moment ago"));
      return;
    }
  }
  find_at_hub(key, may_use_known ? *known : nullptr, ask_hub, deadline, std::move(done));
}

// Answers at the deadline at the latest, from what is known if anything is; the look-up goes on
// behind, whoever has stopped waiting for it.
void Client::find_at_hub(const NameKey& key, const SnapshotPtr& known, bool ask_hub,
                         const Deadline& deadline, Done<SnapshotPtr> done) {
  const OnceDone<SnapshotPtr> once(std::move(done));
  // A hub that does not answer must not make a reader wait for long for what is here; who asked for
  // the hub's word waits for it.
  const bool prefers_known = known && !ask_hub;
  if (prefers_known && fetcher_->health().is_down())
    once(known);
  else if (const auto patience = patience_for(key, prefers_known, deadline))
    upstream_->after(*patience, [key, known, once] {
      once(known ? Result<SnapshotPtr>(known) : not_told_in_time(full_name(key)));
    });
  // Nor may it take away what is here; but who asked for the hub's word is told its no.
  auto answer = [this, key, known, ask_hub, once](Result<SnapshotPtr> result) {
    if (result || !known || result.error().code == Errc::cancelled ||
        (ask_hub && is_refusal(result.error().code))) {
      once(std::move(result));
      return;
    }
    // Many may have waited, and been answered long ago.
    if (once.answer(known) && is_log_due(cat("known ", full_name(key))))
      log_warn(result.error().with(cat(full_name(key), ": not looked up again")).message);
  };
  if (lookups_.join(key, std::move(answer))) look_up(key, deadline);
}

// How long an asker waits; nothing: for as long as the look-up takes.
std::optional<Millis> Client::patience_for(const NameKey& key, bool prefers_known,
                                           const Deadline& deadline) {
  if (deadline.is_never()) return prefers_known ? std::optional(kKnownNamePatience) : std::nullopt;
  const SteadyTime now = steady_now();
  Millis patience = std::max(Millis(0), std::chrono::ceil<Millis>(deadline.at() - now));
  if (prefers_known) return std::min(patience, kKnownNamePatience);
  MutexLock lock(mutex_);
  const auto since = looked_up_since_.find(key);
  const bool is_late =
      since != looked_up_since_.end() && now - since->second > options_.fetch.timeo;
  return is_late ? std::min(patience, kNameFailureMemory) : patience + kAnswerSlack;
}

void Client::look_up(const NameKey& key, const Deadline& asked_until) {
  // Who waits for ever waits for the whole list, not for an answer that does not come.
  const Deadline deadline =
      asked_until.is_never() ? Deadline::after(options_.fetch.timeo) : asked_until;
  {
    MutexLock lock(mutex_);
    looked_up_since_[key] = steady_now();
  }
  if (is_commit(key.second)) {
    list_commit(key, RevisionInfo{key.second, 0, key.first.id}, deadline);
    return;
  }
  upstream_->resolve_revision(key.first, key.second, deadline,
                              [this, key, deadline](Result<RevisionInfo> info) {
                                if (!info)
                                  finish(key, info.error());
                                else
                                  list_commit(key, *info, deadline);
                              });
}

void Client::list_commit(const NameKey& key, const RevisionInfo& info, const Deadline& deadline) {
  // The database is not for the upstream's threads.
  post(key, [this, key, info, deadline] {
    const Result<SnapshotPtr> known = find_known_snapshot(key.first, info.commit);
    if (known && *known) {
      finish(key, adopt(key, info, {}));
      return;
    }
    // Each page has the patience of an answer, not what the question before left of it.
    upstream_->list_tree(
        key.first, info.commit, deadline.renewed(options_.fetch.timeo),
        [this, key, info](Result<std::vector<TreeEntry>> entries) {
          if (!entries) {
            finish(key, entries.error());
            return;
          }
          auto kept = std::make_shared<std::vector<TreeEntry>>(std::move(*entries));
          post(key, [this, key, info, kept] { finish(key, adopt(key, info, std::move(*kept))); });
        });
  });
}

void Client::post(const NameKey& key, std::function<void()> task) {
  if (!fetcher_->post(ThreadPool::Priority::demand, std::move(task)))
    finish(key, Error{Errc::cancelled, "shutting down"});
}

Result<Client::SnapshotPtr> Client::adopt(const NameKey& key, const RevisionInfo& info,
                                          std::vector<TreeEntry> entries) {
  const RowId repo = CAKE_TRY(store_.index().get_repo(source_, key.first));
  SnapshotPtr snapshot = CAKE_TRY(snapshot_of(repo, info.commit));
  if (!snapshot) {
    const int64_t date = info.last_modified != 0 ? info.last_modified : unix_now();
    snapshot = CAKE_TRY(store_.index().put_snapshot(repo, info.commit, date, std::move(entries)));
    if (snapshot->dropped() != 0)
      log_warn(cat(full_name(key), ": ", snapshot->dropped(),
                   " listed file(s) left out: their names or lengths cannot be shown"));
    CAKE_TRY(store_.chunks().record_snapshot(source_, *snapshot));
    MutexLock lock(mutex_);
    live_[{repo, info.commit}] = snapshot;
    recent_.push_front(snapshot);
    if (recent_.size() > kMaxRecentSnapshots) recent_.pop_back();
  }
  if (options_.records_refs) CAKE_TRY(record_ref(key.first, key.second, info.commit));
  return snapshot;
}

Status Client::record_ref(const RepoName& repo, const std::string& revision,
                          const std::string& commit) {
  const RowId row = CAKE_TRY(store_.index().get_repo(source_, repo));
  const RefRow ref{revision, commit, unix_now()};
  CAKE_TRY(store_.index().put_ref(row, ref));
  return store_.chunks().record_ref(source_, repo, ref);
}

void Client::finish(const NameKey& key, Result<SnapshotPtr> result) {
  const SteadyTime now = steady_now();
  bool took_its_time = false;
  {
    MutexLock lock(mutex_);
    const auto since = looked_up_since_.extract(key);
    took_its_time = !since.empty() && now - since.mapped() > kNameFailureMemory;
  }
  if (result) {
    fetcher_->health().succeeded();
    MutexLock lock(mutex_);
    failures_.erase(key);
  } else {
    const Error& error = result.error();
    fetcher_->health().failed(error.code);
    const bool is_absent = error.code == Errc::not_found;
    if (!is_absent) log_failure(full_name(key), error);
    if (is_absent || (took_its_time && error.code != Errc::cancelled)) {
      MutexLock lock(mutex_);
      if (failures_.size() >= kMaxRemembered) failures_.clear();
      const Millis memory =
          is_absent ? Millis(std::chrono::seconds(options_.negative_ttl_s)) : kNameFailureMemory;
      failures_[key] = {error, now + memory};
    }
  }
  lookups_.finish(key, result);
}

void Client::log_failure(const std::string& name, const Error& error) {
  if (error.code == Errc::cancelled || !options_.fetch.logs_failures) return;
  const std::string line = error.with(name).message;
  if (is_log_due(line)) log_warn(line);
}

bool Client::is_log_due(const std::string& what) {
  MutexLock lock(mutex_);
  SteadyTime& logged_at = logged_[what];
  if (logged_at != SteadyTime{} && steady_now() - logged_at < kLogEvery) return false;
  logged_at = steady_now();
  if (logged_.size() > kMaxRemembered) logged_.clear();
  return true;
}

// --- contents ---

Result<std::shared_ptr<FileReader>> Client::open(RowId content) {
  {
    MutexLock lock(mutex_);
    const auto found = readers_.find(content);
    if (found != readers_.end()) return found->second;
  }
  std::optional<ContentRow> row = CAKE_TRY(store_.index().find_content(content));
  if (!row) return Error{Errc::stale, cat("content ", content, " is not in the index")};
  // The same file may be complete here under another hub's name, or imported.
  if (!row->verified) {
    const Result<uint64_t> adopted = adopt_twin(store_, *row);
    if (!adopted)
      log_warn(adopted.error().with("looking for the same file elsewhere").message);
    else if (*adopted > 0)
      row->verified = true;
  }
  ReaderEvents events;
  events.on_first_read = [to = prefetcher_](const ContentRow& read) { to->started(read); };
  events.on_next_wanted = [to = prefetcher_](const ContentRow& read, ByteRange of_next) {
    to->wants_next(read, of_next);
  };
  auto reader = std::make_shared<FileReader>(fetcher_, std::move(*row), std::move(events));
  MutexLock lock(mutex_);
  const auto [place, is_new] = readers_.emplace(content, reader);
  if (!is_new) return place->second;
  readers_by_age_.push_front(content);
  // The oldest that nobody else holds go; those in use stay, however many.
  for (auto age = readers_by_age_.end();
       readers_.size() > kMaxReaders && age != readers_by_age_.begin();) {
    --age;
    const auto old = readers_.find(*age);
    if (old->second.use_count() > 1) continue;
    readers_.erase(old);
    age = readers_by_age_.erase(age);
  }
  return reader;
}

void Client::forget(RowId content) {
  {
    MutexLock lock(mutex_);
    readers_.erase(content);
    readers_by_age_.remove(content);
  }
  fetcher_->cache().forget(content);
}

}  // namespace cake
