#include "fs/view_rows.h"

namespace cake {

namespace {

constexpr size_t kMaxListings = 8;
constexpr size_t kMaxMtimes = 1'000'000;
constexpr size_t kMaxViews = 100'000;

}  // namespace

ViewRows::ViewRows(Client& client, EventLog& events)
    : client_(client), events_(events), mounted_at_(unix_now()) {}

Result<ViewRow> ViewRows::get(RowId view) {
  {
    MutexLock lock(mutex_);
    const auto found = views_.find(view);
    if (found != views_.end()) return found->second;
  }
  std::optional<ViewRow> row = CAKE_TRY(client_.store().index().find_view(view));
  MutexLock lock(mutex_);
  if (!row) {
    // A rebuilt index numbers anew: the name, looked up again, must get a row that is there.
    std::erase_if(ids_, [view](const auto& known) { return known.second == view; });
    return Error{Errc::stale, cat("directory ", view, " is not in the index")};
  }
  if (views_.size() >= kMaxViews) views_.clear();
  views_[view] = *row;
  return *row;
}

Result<RowId> ViewRows::id_of(const ViewRow& row) {
  const std::tuple<std::string, std::string, std::string> key{row.layout, row.typed, row.commit};
  {
    MutexLock lock(mutex_);
    const auto found = ids_.find(key);
    if (found != ids_.end()) return found->second;
  }
  const RowId id = CAKE_TRY(client_.store().index().get_view(row));
  MutexLock lock(mutex_);
  if (ids_.size() >= kMaxViews) ids_.clear();
  ids_[key] = id;
  return id;
}

Result<Client::SnapshotPtr> ViewRows::snapshot_of(const ViewRow& row) {
  Client::SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(row.repo, row.commit));
  if (!snapshot)
    return Error{Errc::stale, cat(row.repo.id, "@", row.commit, " is no longer in the store")};
  return snapshot;
}

Result<int64_t> ViewRows::mtime_of(RowId content) {
  {
    MutexLock lock(mutex_);
    const auto found = mtimes_.find(content);
    if (found != mtimes_.end()) return found->second;
  }
  const std::optional<ContentRow> row = CAKE_TRY(client_.store().index().find_content(content));
  if (!row) return Error{Errc::corrupt, cat("content ", content, " is not in the index")};
  MutexLock lock(mutex_);
  if (mtimes_.size() >= kMaxMtimes) mtimes_.clear();
  mtimes_[content] = row->mtime;
  return row->mtime;
}

Result<NodeFacts> ViewRows::names_facts(const std::string& layout, const std::string& typed) {
  ViewRow row;
  row.layout = layout;
  row.source = client_.source();
  row.typed = typed;
  NodeFacts facts;
  facts.node = names_node(CAKE_TRY(id_of(row)));
  facts.is_directory = true;
  facts.mtime = mounted_at_;
  facts.is_moving = true;
  return facts;
}

Result<NodeFacts> ViewRows::file_facts(RowId content) {
  const std::optional<ContentRow> row = CAKE_TRY(client_.store().index().find_content(content));
  if (!row) return Error{Errc::stale, cat("content ", content, " is not in the index")};
  NodeFacts facts;
  facts.node = file_node(content);
  facts.bytes = row->bytes;
  facts.mtime = row->mtime;
  return facts;
}

ListingPtr ViewRows::find_listing(uint64_t node, const std::string& state) {
  MutexLock lock(mutex_);
  for (auto place = listings_.begin(); place != listings_.end(); ++place)
    if (place->node == node && place->state == state) {
      listings_.splice(listings_.begin(), listings_, place);
      return listings_.front().listing;
    }
  return nullptr;
}

void ViewRows::keep_listing(uint64_t node, const std::string& state, ListingPtr listing) {
  MutexLock lock(mutex_);
  listings_.remove_if([&](const KeptListing& kept) { return kept.node == node; });
  listings_.push_front({node, state, std::move(listing)});
  if (listings_.size() > kMaxListings) listings_.pop_back();
}

}  // namespace cake
