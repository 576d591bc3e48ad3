// The default layout: /ORG/NAME[@REV]/…, /datasets/ORG/NAME/…, /spaces/ORG/NAME/…; or one repo.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "fetch/client.h"
#include "fs/view.h"

namespace cake {

struct FlatViewOptions {
  // Set: the root is this repo (hf:ORG/NAME@REV).
  std::optional<RepoName> single_repo;
  std::string revision = "main";  // of names without @REV
};

// Thread-safe.
class FlatView final : public View {
 public:
  FlatView(Client& client, FlatViewOptions options);  // client outlives this

  void look_up(uint64_t directory, const std::string& name, Deadline deadline,
               Done<NodeFacts> done) override;
  void list(uint64_t directory, Deadline deadline, Done<ListingPtr> done) override;
  void find_facts(uint64_t node, Deadline deadline, Done<NodeFacts> done) override;
  Result<std::vector<std::pair<std::string, std::string>>> directory_xattrs(uint64_t node) override;
  bool is_moving(uint64_t directory) const override;

 private:
  using SnapshotPtr = Client::SnapshotPtr;
  // A directory above repos, taken apart: "" (root), "datasets", "ORG", "datasets/ORG".
  struct NamesPlace {
    RepoType type = RepoType::model;
    std::string author;  // empty: authors are listed here
    bool is_root = false;
  };

  Result<ViewRow> view_row(RowId view) EXCLUDES(mutex_);
  Result<RowId> view_id(const ViewRow& row) EXCLUDES(mutex_);
  Result<SnapshotPtr> snapshot_of(const ViewRow& row);
  Result<NamesPlace> names_place(uint64_t node);
  Result<NodeFacts> names_facts(const std::string& typed);
  Result<NodeFacts> tree_facts(RowId view, const Snapshot& snapshot, uint32_t ordinal,
                               bool is_moving);
  Result<NodeFacts> root_of(const RepoName& repo, const std::string& typed,
                            const SnapshotPtr& snapshot, bool is_moving);
  void look_up_author(const NamesPlace& place, const std::string& name, Deadline deadline,
                      Done<NodeFacts> done);
  void look_up_repo(const NamesPlace& place, const std::string& name, Deadline deadline,
                    Done<NodeFacts> done);
  void look_up_in_single(const std::string& name, Deadline deadline, Done<NodeFacts> done);
  Result<NodeFacts> look_up_in_tree(uint64_t directory, const std::string& name);
  Result<ListingPtr> list_tree(uint64_t directory) EXCLUDES(mutex_);
  Result<int64_t> mtime_of(RowId content) EXCLUDES(mutex_);
  std::string typed_prefix(RepoType type) const;

  // Constant after construction.
  Client& client_;
  const FlatViewOptions options_;
  const int64_t mounted_at_;

  // Guarded by mutex_.  Leaf lock.  Copies of immutable rows.
  mutable Mutex mutex_;
  std::unordered_map<RowId, ViewRow> views_ GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, RowId> view_ids_ GUARDED_BY(mutex_);
  std::unordered_map<RowId, int64_t> mtimes_ GUARDED_BY(mutex_);
  std::list<std::pair<uint64_t, ListingPtr>> listings_ GUARDED_BY(mutex_);  // newest first
};

}  // namespace cake
