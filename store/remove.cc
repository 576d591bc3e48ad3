#include "store/remove.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "store/base/fault.h"
#include "store/evict.h"

namespace cake {

namespace {

constexpr size_t kRemoveRows = 20'000;
// Others that take or give space are waited for so long.
constexpr Millis kLockPatience{60'000};

using Ids = std::vector<RowId>;  // sorted

void sort_unique(Ids& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

Ids without(const Ids& all, const Ids& some) {
  Ids rest;
  std::set_difference(all.begin(), all.end(), some.begin(), some.end(), std::back_inserter(rest));
  return rest;
}

bool has_key(const std::vector<uint64_t>& keys, const Digest& digest) {
  return std::binary_search(keys.begin(), keys.end(), digest_key(digest));
}

// Everything of a removal, decided before anything is changed.
struct Plan {
  std::vector<RemovalTarget> targets;  // names that go
  Ids contents;                        // recipes that go
  std::vector<uint64_t> staying_keys;  // digest_key of what other names lead to
  std::vector<ChunkRow> rows;          // chunks that go
  Reclaimer::Kept kept;
  Removed sum;
};

class Planner {
 public:
  explicit Planner(Store& store) : store_(store), upkeep_(store.upkeep()) {}

  Result<Plan> of_targets(std::span<const RemovalTarget> targets) {
    Plan plan;
    whole_packs_ = CAKE_TRY(upkeep_.whole_packs());
    plan.targets.assign(targets.begin(), targets.end());
    Ids doomed, staying;
    CAKE_TRY(sort_names(targets, doomed, staying, plan.sum.snapshots));
    plan.kept = CAKE_TRY(store_.evictor().reclaimer().kept());
    // What only the targets name.  What is open keeps its chunks and its recipe.
    const Ids leased = CAKE_TRY(Lease::all(store_.directory()));
    const Ids gone = without(doomed, staying);
    plan.contents = without(gone, leased);
    const std::vector<uint64_t> doomed_keys = CAKE_TRY(upkeep_.digest_keys(gone));
    plan.staying_keys = CAKE_TRY(upkeep_.digest_keys(staying));
    const std::vector<uint64_t> open_keys = CAKE_TRY(upkeep_.digest_keys(leased));
    CAKE_TRY(upkeep_.each_chunk([&](const ChunkRow& row) -> Status {
      if (!has_key(doomed_keys, row.digest) || has_key(plan.staying_keys, row.digest)) return {};
      add(plan, row, open_keys);
      return {};
    }));
    plan.sum.contents = plan.contents.size();
    return plan;
  }

  Result<Plan> of_prune(const PruneOptions& options) {
    Plan plan;
    whole_packs_ = CAKE_TRY(upkeep_.whole_packs());
    if (options.detached) {
      const std::vector<RemovalTarget> targets = CAKE_TRY(detached());
      plan = CAKE_TRY(of_targets(targets));
    }
    plan.kept = CAKE_TRY(store_.evictor().reclaimer().kept());
    std::set<Digest> taken;
    for (const ChunkRow& row : plan.rows) taken.insert(row.digest);
    std::vector<uint64_t> named_keys;
    if (options.detached) {
      Ids named = CAKE_TRY(upkeep_.named_contents());
      // After the removal, not before it.
      named = without(named, plan.contents);
      named_keys = CAKE_TRY(upkeep_.digest_keys(named));
    }
    const std::vector<uint64_t> partial_keys =
        options.incomplete ? CAKE_TRY(keys_of_incomplete_only()) : std::vector<uint64_t>();
    const int64_t oldest = unix_now() - options.max_age_s.value_or(0);
    CAKE_TRY(upkeep_.each_chunk([&](const ChunkRow& row) -> Status {
      if (is_whole(row)) return {};
      const bool is_orphan = options.detached && !has_key(named_keys, row.digest);
      const bool is_partial = options.incomplete && has_key(partial_keys, row.digest);
      const bool is_old = options.max_age_s && row.last_access < oldest;
      if ((is_orphan || is_partial || is_old) && !taken.contains(row.digest))
        add(plan, row, plan.kept.keys);
      return {};
    }));
    return plan;
  }

  // Commits that no revision leads to, unless they are pinned themselves.
  Result<std::vector<RemovalTarget>> detached() {
    std::set<std::pair<RowId, std::string>> pinned;
    for (const PinRow& pin : CAKE_TRY(upkeep_.list_pins())) pinned.insert({pin.repo, pin.revision});
    std::vector<RemovalTarget> targets;
    Index& index = store_.index();
    for (const std::string& source : CAKE_TRY(index.list_sources()))
      for (const RepoRow& repo : CAKE_TRY(index.list_repos(source))) {
        std::set<std::string> led_to;
        for (const RefRow& ref : CAKE_TRY(index.list_refs(repo.id)))
          // That a commit leads to itself does not count, unless it is all there is.
          if (ref.revision != ref.commit) led_to.insert(ref.commit);
        for (const SnapshotRow& row : CAKE_TRY(index.list_snapshots(repo.id)))
          if (!led_to.empty() && !led_to.contains(row.commit) &&
              !pinned.contains({repo.id, row.commit}))
            targets.push_back({source, repo, row.commit});
      }
    return targets;
  }

 private:
  // Rows of files kept whole are counted, not taken: see let_whole_files_go.
  void add(Plan& plan, const ChunkRow& row, const std::vector<uint64_t>& open_keys) const {
    const uint64_t bytes = Reclaimer::disk_bytes(row.location);
    if (has_key(open_keys, row.digest)) {
      plan.sum.in_use_bytes += bytes;
      return;
    }
    plan.sum.chunks++;
    plan.sum.bytes += bytes;
    if (!is_whole(row)) plan.rows.push_back(row);
  }

  // Contents that the targets name, and those that other commits name.
  Status sort_names(std::span<const RemovalTarget> targets, Ids& doomed, Ids& staying,
                    uint64_t& snapshots) {
    std::set<std::pair<RowId, std::string>> going;
    for (const RemovalTarget& target : targets) going.insert({target.repo.id, target.commit});
    Index& index = store_.index();
    for (const std::string& source : CAKE_TRY(index.list_sources()))
      for (const RepoRow& repo : CAKE_TRY(index.list_repos(source)))
        for (const SnapshotRow& row : CAKE_TRY(index.list_snapshots(repo.id))) {
          const auto snapshot = CAKE_TRY(index.find_snapshot(repo.id, row.commit));
          if (snapshot == nullptr) continue;
          const bool goes = going.contains({repo.id, ""}) || going.contains({repo.id, row.commit});
          if (goes) snapshots++;
          for (uint32_t i = 0; i < snapshot->entries().size(); i++)
            (goes ? doomed : staying).push_back(snapshot->content_id(i));
        }
    sort_unique(doomed);
    sort_unique(staying);
    return {};
  }

  // Extents of contents that lack some, and that no complete content has.
  Result<std::vector<uint64_t>> keys_of_incomplete_only() {
    Ids partial, complete;
    for (const RowId content : CAKE_TRY(upkeep_.named_contents())) {
      const std::optional<ContentRow> row = CAKE_TRY(store_.index().find_content(content));
      if (!row) continue;
      const bool is_complete = CAKE_TRY(store_.index().cached(content)).bytes >= row->bytes;
      (is_complete ? complete : partial).push_back(content);
    }
    std::vector<uint64_t> keys;
    const std::vector<uint64_t> some = CAKE_TRY(upkeep_.digest_keys(partial));
    const std::vector<uint64_t> whole = CAKE_TRY(upkeep_.digest_keys(complete));
    std::set_difference(some.begin(), some.end(), whole.begin(), whole.end(),
                        std::back_inserter(keys));
    return keys;
  }

  bool is_whole(const ChunkRow& row) const {
    return std::binary_search(whole_packs_.begin(), whole_packs_.end(), row.location.pack);
  }

  Store& store_;
  IndexUpkeep& upkeep_;
  std::vector<uint32_t> whole_packs_;
};

// Chunks first: stopped in the middle, the names are still there to be removed by.
Status carry_out(Store& store, Plan& plan) {
  Reclaimer& reclaimer = store.evictor().reclaimer();
  plan.sum.chunks = plan.sum.bytes = 0;
  const std::span<const ChunkRow> rows(plan.rows);
  for (size_t first = 0; first < rows.size(); first += kRemoveRows) {
    const Reclaimer::Gone gone = CAKE_TRY(reclaimer.remove(
        rows.subspan(first, std::min(kRemoveRows, rows.size() - first)), plan.kept, false));
    plan.sum.chunks += gone.chunks;
    plan.sum.bytes += gone.bytes;
  }
  fault_point("remove.chunks_gone");
  for (const RemovalTarget& target : plan.targets) {
    CAKE_TRY(store.upkeep().drop_snapshots(target.repo.id, target.commit));
    CAKE_TRY(store.chunks().record_removal(target.source, target.repo.name, target.commit));
  }
  fault_point("remove.names_gone");
  return store.upkeep().forget_contents(plan.contents);
}

// What became of files kept whole that only the targets name.
struct WholeGone {
  uint64_t bytes = 0;
  Ids staying;  // keep their recipes as well, without which nobody could take them apart
};

// Before rows are dropped, and without space.lock: what others share of such files is copied.
Result<WholeGone> let_whole_files_go(Store& store, std::span<const RemovalTarget> targets) {
  WholeGone gone;
  if (CAKE_TRY(store.upkeep().whole_packs()).empty()) return gone;
  const std::shared_ptr<WholeFiles> files = store.evictor().whole_files();
  if (files == nullptr) return gone;
  const Plan plan = CAKE_TRY(Planner(store).of_targets(targets));
  for (const WholeFiles::Entry& file : CAKE_TRY(files->list())) {
    if (!std::binary_search(plan.contents.begin(), plan.contents.end(), file.content)) continue;
    const auto freed = CAKE_TRY(files->remove(file.content, plan.staying_keys));
    if (freed)
      gone.bytes += *freed;
    else
      gone.staying.push_back(file.content);
  }
  sort_unique(gone.staying);
  return gone;
}

// Files kept whole that were last opened before the prune's age, and that nothing kept needs.
Result<std::vector<WholeFiles::Entry>> old_whole_files(Store& store, const PruneOptions& options) {
  std::vector<WholeFiles::Entry> old;
  if (!options.max_age_s || CAKE_TRY(store.upkeep().whole_packs()).empty()) return old;
  const std::shared_ptr<WholeFiles> files = store.evictor().whole_files();
  if (files == nullptr) return old;
  const Reclaimer::Kept kept = CAKE_TRY(store.evictor().reclaimer().kept());
  const int64_t oldest = unix_now() - *options.max_age_s;
  for (const WholeFiles::Entry& file : CAKE_TRY(files->list_evictable(kept.keys)))
    if (file.last_access < oldest) old.push_back(file);
  return old;
}

// What an eviction could take, and what it leaves because it is pinned or open.
struct Evictable {
  uint64_t bytes = 0;
  uint64_t kept_bytes = 0;
};

Result<Evictable> find_evictable(Store& store) {
  const Reclaimer::Kept kept = CAKE_TRY(store.evictor().reclaimer().kept());
  Evictable sum;
  CAKE_TRY(store.upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    (kept.has(row.digest) ? sum.kept_bytes : sum.bytes) += Reclaimer::disk_bytes(row.location);
    return {};
  }));
  return sum;
}

}  // namespace

Result<Removed> plan_removal(Store& store, std::span<const RemovalTarget> targets) {
  return CAKE_TRY(Planner(store).of_targets(targets)).sum;
}

Result<Removed> remove_targets(Store& store, std::span<const RemovalTarget> targets) {
  Removed sum;
  const WholeGone whole = CAKE_TRY(let_whole_files_go(store, targets));
  {
    const File lock = CAKE_TRY(store.evictor().space().lock(Deadline::after(kLockPatience)));
    Plan plan = CAKE_TRY(Planner(store).of_targets(targets));
    plan.contents = without(plan.contents, whole.staying);
    CAKE_TRY(carry_out(store, plan));
    sum = plan.sum;
    sum.bytes += whole.bytes;
  }
  // Without the lock, which this store's writer may want first.
  CAKE_TRY(store.chunks().flush());
  return sum;
}

Result<Removed> plan_prune(Store& store, const PruneOptions& options) {
  Removed sum = CAKE_TRY(Planner(store).of_prune(options)).sum;
  for (const WholeFiles::Entry& file : CAKE_TRY(old_whole_files(store, options)))
    sum.bytes += file.bytes;
  if (options.max_bytes) {
    const uint64_t used = CAKE_TRY(store.disk_bytes());
    const uint64_t surplus = used - std::min(used, *options.max_bytes);
    const Evictable evictable = CAKE_TRY(find_evictable(store));
    sum.bytes = std::max(sum.bytes, std::min(surplus, evictable.bytes));
    if (surplus > evictable.bytes)
      sum.in_use_bytes = std::max(sum.in_use_bytes, evictable.kept_bytes);
  }
  return sum;
}

Result<Removed> prune(Store& store, const PruneOptions& options) {
  uint64_t whole_bytes = 0;
  if (options.max_age_s) {
    const File lock = CAKE_TRY(store.evictor().space().lock(Deadline::after(kLockPatience)));
    for (const WholeFiles::Entry& file : CAKE_TRY(old_whole_files(store, options)))
      whole_bytes += store.evictor().whole_files()->evict(file.content);
  }
  WholeGone whole;
  if (options.detached) {
    const std::vector<RemovalTarget> targets = CAKE_TRY(Planner(store).detached());
    whole = CAKE_TRY(let_whole_files_go(store, targets));
  }
  Removed sum;
  {
    const File lock = CAKE_TRY(store.evictor().space().lock(Deadline::after(kLockPatience)));
    Plan plan = CAKE_TRY(Planner(store).of_prune(options));
    plan.contents = without(plan.contents, whole.staying);
    CAKE_TRY(carry_out(store, plan));
    sum = plan.sum;
    sum.bytes += whole_bytes + whole.bytes;
  }
  CAKE_TRY(store.chunks().flush());
  if (options.max_bytes) {
    const uint64_t used = CAKE_TRY(store.disk_bytes());
    if (used > *options.max_bytes) {
      const Reclaimer::Gone gone = CAKE_TRY(store.evictor().evict(used - *options.max_bytes));
      sum.chunks += gone.chunks;
      sum.bytes += gone.bytes;
    }
  }
  return sum;
}

}  // namespace cake
