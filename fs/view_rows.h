// The index rows behind directory numbers, as the views of a mount share them.
#pragma once

#include <list>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>

#include "fetch/client.h"
#include "fs/event_log.h"
#include "fs/view.h"

namespace cake {

// Copies of rows that never change.  Thread-safe.
class ViewRows {
 public:
  ViewRows(Client& client, EventLog& events);  // both outlive this

  Client& client() const { return client_; }
  EventLog& events() const { return events_; }
  // Of what has no date: the mount itself, and names above repos.
  int64_t mounted_at() const { return mounted_at_; }

  // stale when the index does not have it (any more).
  Result<ViewRow> get(RowId view) EXCLUDES(mutex_);
  Result<RowId> id_of(const ViewRow& row) EXCLUDES(mutex_);
  Result<int64_t> mtime_of(RowId content) EXCLUDES(mutex_);
  // The commit of a row; stale when it is no longer in the store.
  Result<Client::SnapshotPtr> snapshot_of(const ViewRow& row);

  // A directory above repos, and its number.
  Result<NodeFacts> names_facts(const std::string& layout, const std::string& typed);
  // What every view knows of a file's number.
  Result<NodeFacts> file_facts(RowId content);

  // Listings made lately.  `state` tells whether one is still true; empty for what never changes.
  ListingPtr find_listing(uint64_t node, const std::string& state) EXCLUDES(mutex_);
  void keep_listing(uint64_t node, const std::string& state, ListingPtr listing) EXCLUDES(mutex_);

 private:
  struct KeptListing {
    uint64_t node = 0;
    std::string state;
    ListingPtr listing;
  };

  // Constant after construction.
  Client& client_;
  EventLog& events_;
  const int64_t mounted_at_;

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  std::unordered_map<RowId, ViewRow> views_ GUARDED_BY(mutex_);
  // By layout, typed, commit.
  std::map<std::tuple<std::string, std::string, std::string>, RowId> ids_ GUARDED_BY(mutex_);
  std::unordered_map<RowId, int64_t> mtimes_ GUARDED_BY(mutex_);
  std::list<KeptListing> listings_ GUARDED_BY(mutex_);  // newest first
};

}  // namespace cake
