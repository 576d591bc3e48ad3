// A hub and a store together: names and bytes, from what is known or from the network.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "fetch/fetcher.h"
#include "fetch/file_reader.h"
#include "fetch/single_flight.h"
#include "fetch/upstream.h"
#include "store/base/metrics.h"
#include "store/store.h"

namespace cake {

class Prefetcher;

// `offline=`: automatic uses the network and lives without it; yes never uses it; no wants it.
enum class Offline { automatic, yes, no };

struct ClientOptions {
  FetchOptions fetch;
  Offline offline = Offline::automatic;
  // Seconds after which a branch or tag is looked up again; negative: never (until a pull).
  int64_t refresh_s = -1;
  // How long an absent name is remembered, and an author's listing counts as new.
  int64_t negative_ttl_s = 60;
  int64_t listing_ttl_s = 60;
  // Whether the answer of the hub becomes what a branch or tag leads to, for all processes of the
  // store; without it only record_ref does that.
  bool records_refs = true;
  // Whether prefetch=repo may take a file, by its path in the repo; empty: any.
  std::function<bool(const std::string& path)> prefetches;
};

// Thread-safe.  Nothing here waits for the network; answers come through Done, at once when they
// are known locally, else from a thread of the upstream or of the store's pool.
class Client {
 public:
  using SnapshotPtr = std::shared_ptr<const Snapshot>;

  // `source` is Upstream::source() of what the names belong to; `upstream` may be null (offline).
  // Store and metrics outlive the client.
  Client(Store& store, std::string source, std::unique_ptr<Upstream> upstream,
         ClientOptions options, Metrics& metrics);
  ~Client();

  const std::string& source() const { return source_; }
  Store& store() { return store_; }
  bool is_offline() const { return upstream_ == nullptr; }
  UpstreamHealth& health() { return fetcher_->health(); }
  const ClientOptions& options() const { return options_; }

  // A repo at a revision.  Known names are answered from the store; `ask_hub` looks the revision up
  // again first (and falls back to the store when the hub does not answer, unless offline=no).
  // not_found is remembered for negative_ttl_s, another failure for a moment, if it took its time.
  // At the deadline the caller hears timeout, or gets what is known, and the look-up goes on
  // behind; without one they wait for as long as the hub answers each question within `timeo`.
  void find_snapshot(const RepoName& repo, const std::string& revision, bool ask_hub,
                     Deadline deadline, Done<SnapshotPtr> done);
  // From now on the revision leads to this commit, which is in the store.
  Status record_ref(const RepoName& repo, const std::string& revision, const std::string& commit);
  // Only what the store knows; nullptr when nothing.
  Result<SnapshotPtr> find_known_snapshot(const RepoName& repo, const std::string& revision);

  // Ids of an author's repos: the hub's list when there is one, and what is known locally.  A
  // listing that is too old is answered all the same and renewed behind.
  void list_author(RepoType type, const std::string& author, Deadline deadline,
                   Done<std::vector<std::string>> done);
  // Whether there may be such an author: ok also when the hub answers without a list, for their
  // repos may be had by name all the same.  Asks for one page at most, and for none when anything
  // is known.
  void find_author(RepoType type, const std::string& author, Deadline deadline,
                   Done<std::monostate> done);
  // Authors with a repo that the store holds a snapshot of.
  Result<std::vector<std::string>> known_authors(RepoType type);

  // The reader of a content, shared by all who have it open.
  Result<std::shared_ptr<FileReader>> open(RowId content);
  // What is remembered of a content was wrong: who opens it next begins anew.
  void forget(RowId content) EXCLUDES(mutex_);

  // Ends network work; waiting callers get Errc::cancelled.  Then writes out what is fetched.
  void stop();

 private:
  // How much later than their deadline callers are told: a question that fails at the same deadline
  // says more than that it was late.
  static constexpr Millis kAnswerSlack{250};

  using NameKey = std::pair<RepoName, std::string>;  // repo and revision
  struct KnownAuthor {
    std::vector<std::string> ids;   // of the last listing, and those with a snapshot here
    bool is_listed_lately = false;  // the listing is not to be renewed yet
  };
  struct ListingKey {
    RepoType type;
    std::string author;
    ListPart part;
    auto operator<=>(const ListingKey&) const = default;  // NOLINT(modernize-use-nullptr)
  };

  void find_at_hub(const NameKey& key, const SnapshotPtr& known, bool ask_hub,
                   const Deadline& deadline, Done<SnapshotPtr> done);
  std::optional<Millis> patience_for(const NameKey& key, bool prefers_known,
                                     const Deadline& deadline) EXCLUDES(mutex_);
  void look_up(const NameKey& key, const Deadline& asked_until) EXCLUDES(mutex_);
  void list_commit(const NameKey& key, const RevisionInfo& info, const Deadline& deadline);
  // A step of the look-up, on the pool; without a next step it ends.
  void post(const NameKey& key, std::function<void()> task);
  Result<SnapshotPtr> adopt(const NameKey& key, const RevisionInfo& info,
                            std::vector<TreeEntry> entries);
  void finish(const NameKey& key, Result<SnapshotPtr> result);
  // One line a minute for what keeps failing alike.
  void log_failure(const std::string& name, const Error& error) EXCLUDES(mutex_);
  bool is_log_due(const std::string& what) EXCLUDES(mutex_);
  std::optional<Error> remembered_failure(const NameKey& key) EXCLUDES(mutex_);
  Result<SnapshotPtr> snapshot_of(RowId repo_row, const std::string& commit) EXCLUDES(mutex_);
  Result<std::vector<std::string>> known_repos_of(RepoType type, const std::string& author);
  // Errors are answers that need no hub: no such name, absent when asked lately, offline.
  Result<KnownAuthor> known_author(RepoType type, const std::string& author);
  void ask_for_listing(RepoType type, const std::string& author, ListPart part, Deadline deadline,
                       Done<RepoList> done);

  // Constant after construction.
  Store& store_;
  const std::string source_;
  const ClientOptions options_;
  const std::unique_ptr<Upstream> upstream_;
  const std::shared_ptr<Fetcher> fetcher_;
  const std::shared_ptr<Prefetcher> prefetcher_;

  SingleFlight<NameKey, SnapshotPtr> lookups_;
  SingleFlight<ListingKey, RepoList> listings_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  struct Failure {
    Error error;
    SteadyTime until;
  };
  std::map<NameKey, Failure> failures_ GUARDED_BY(mutex_);
  std::map<NameKey, SteadyTime> looked_up_since_ GUARDED_BY(mutex_);
  std::map<std::string, SteadyTime> logged_ GUARDED_BY(mutex_);
  // Snapshots in use or used lately: a tree of 10,000 files is decoded once.
  std::map<std::pair<RowId, std::string>, std::weak_ptr<const Snapshot>> live_ GUARDED_BY(mutex_);
  std::list<SnapshotPtr> recent_ GUARDED_BY(mutex_);
  std::unordered_map<RowId, std::shared_ptr<FileReader>> readers_ GUARDED_BY(mutex_);
  std::list<RowId> readers_by_age_ GUARDED_BY(mutex_);  // newest first
};

// Runs an asynchronous call and waits for its answer: for commands, never on a FUSE worker.
template <typename T>
Result<T> wait_for(const std::function<void(Done<T>)>& start) {
  struct State {
    std::mutex mutex;
    std::condition_variable arrived;
    std::optional<Result<T>> result;
  };
  auto state = std::make_shared<State>();
  start([state](Result<T> result) {
    const std::lock_guard<std::mutex> lock(state->mutex);
    state->result.emplace(std::move(result));
    state->arrived.notify_one();
  });
  std::unique_lock<std::mutex> lock(state->mutex);
  state->arrived.wait(lock, [&] { return state->result.has_value(); });
  return std::move(*state->result);
}

}  // namespace cake
