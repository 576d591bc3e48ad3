// What lies below a commit: directories and files that never change, with numbers that follow from
// the row of the name that led there and the place in the sorted tree.
#pragma once

#include <string>

#include "fs/shown_files.h"
#include "fs/view_rows.h"

namespace cake {

// Thread-safe.
class CommitTree {
 public:
  using SnapshotPtr = Client::SnapshotPtr;
  // Files of a tree of links are symbolic links.
  enum class Files { contents, links };
  // Rows outlive this.  Links keep the paths that the repo has.
  CommitTree(ViewRows& rows, std::string layout, Files files, ShownChoice shown = {});

  // The root of a commit under the name that was typed; the row is made.
  Result<NodeFacts> root(const RepoName& repo, const std::string& typed,
                         const SnapshotPtr& snapshot, bool is_moving);
  Result<NodeFacts> look_up(uint64_t directory, const std::string& name);
  Result<ListingPtr> list(uint64_t directory);
  // Of a tree or link.
  Result<NodeFacts> find_facts(uint64_t node);
  // The commit that a tree or link belongs to, as far as it is shown.
  Result<SnapshotPtr> snapshot_at(uint64_t node);

 private:
  Result<NodeFacts> facts(RowId view, const Snapshot& snapshot, uint32_t ordinal);

  // Constant after construction.
  ViewRows& rows_;
  const std::string layout_;
  const Files files_;

  ShownFiles shown_;  // synchronises itself
};

}  // namespace cake
