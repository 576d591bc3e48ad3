#include "fs/commit_tree.h"

#include "fs/hf_names.h"

namespace cake {

CommitTree::CommitTree(ViewRows& rows, std::string layout, Files files, ShownChoice shown)
    : rows_(rows),
      layout_(std::move(layout)),
      files_(files),
      shown_(std::move(shown),
             files == Files::links ? ShownFiles::Paths::whole : ShownFiles::Paths::below_subdir) {}

Result<NodeFacts> CommitTree::facts(RowId view, const Snapshot& snapshot, uint32_t ordinal) {
  if (ordinal >= snapshot.nodes().size() || ordinal > kMaxOrdinal)
    return Error{Errc::stale, cat("no entry ", ordinal, " in ", snapshot.repo().id)};
  const Node& node = snapshot.nodes()[ordinal];
  NodeFacts facts;
  facts.is_directory = node.is_directory;
  if (node.is_directory) {
    facts.node = tree_node(view, ordinal);
    facts.mtime = snapshot.date();
    return facts;
  }
  if (files_ == Files::links) {
    facts.node = link_node(view, ordinal);
    facts.is_link = true;
    facts.bytes = hf_link_target(snapshot, ordinal).size();
    facts.mtime = snapshot.date();
    return facts;
  }
  const RowId content = snapshot.content_id(node.entry);
  facts.node = file_node(content);
  facts.bytes = snapshot.entries()[node.entry].bytes;
  facts.mtime = CAKE_TRY(rows_.mtime_of(content));
  return facts;
}

Result<NodeFacts> CommitTree::root(const RepoName& repo, const std::string& typed,
                                   const SnapshotPtr& snapshot, bool is_moving) {
  ViewRow row;
  row.layout = layout_;
  row.source = rows_.client().source();
  row.repo = repo;
  row.typed = typed;
  row.commit = snapshot->commit();
  const RowId view = CAKE_TRY(rows_.id_of(row));
  const SnapshotPtr shown = CAKE_TRY(shown_.of(snapshot));
  NodeFacts found = CAKE_TRY(facts(view, *shown, 0));
  found.is_moving = is_moving;
  rows_.events().note_resolved(typed.empty() ? repo.id : typed, snapshot->commit());
  return found;
}

Result<CommitTree::SnapshotPtr> CommitTree::snapshot_at(uint64_t node) {
  const ViewRow row = CAKE_TRY(rows_.get(view_of_tree(node)));
  const SnapshotPtr snapshot = CAKE_TRY(rows_.snapshot_of(row));
  return shown_.of(snapshot);
}

Result<NodeFacts> CommitTree::look_up(uint64_t directory, const std::string& name) {
  const SnapshotPtr snapshot = CAKE_TRY(snapshot_at(directory));
  if (ordinal_of_tree(directory) < snapshot->nodes().size())
    if (const auto child = snapshot->find_child(ordinal_of_tree(directory), name))
      return facts(view_of_tree(directory), *snapshot, *child);
  return no_such(name);
}

Result<NodeFacts> CommitTree::find_facts(uint64_t node) {
  const SnapshotPtr snapshot = CAKE_TRY(snapshot_at(node));
  return facts(view_of_tree(node), *snapshot, ordinal_of_tree(node));
}

Result<ListingPtr> CommitTree::list(uint64_t directory) {
  if (ListingPtr kept = rows_.find_listing(directory, "")) return kept;
  const SnapshotPtr snapshot = CAKE_TRY(snapshot_at(directory));
  const uint32_t ordinal = ordinal_of_tree(directory);
  if (ordinal >= snapshot->nodes().size() || !snapshot->nodes()[ordinal].is_directory)
    return Error{Errc::stale, cat("no directory ", ordinal, " in ", snapshot->repo().id)};
  const Node& parent = snapshot->nodes()[ordinal];
  auto listing = std::make_shared<Listing>();
  listing->names.reserve(parent.child_count);
  for (uint32_t i = 0; i < parent.child_count; i++) {
    const uint32_t child = parent.first_child + i;
    const NodeFacts found = CAKE_TRY(facts(view_of_tree(directory), *snapshot, child));
    const std::string_view name = snapshot->nodes()[child].name;
    // The kernel has no names longer than that; the file exists, without one here.
    if (name.size() > 255) continue;
    listing->names.push_back({std::string(name), kFirstCookie + 1 + i, found.is_directory,
                              found.node, found.bytes, found.mtime, found.is_link});
  }
  rows_.keep_listing(directory, "", listing);
  return ListingPtr(listing);
}

}  // namespace cake
