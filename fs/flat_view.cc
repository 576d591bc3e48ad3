#include "fs/flat_view.h"

#include <algorithm>

#include "store/base/digest.h"

namespace cake {

namespace {

constexpr size_t kMaxListings = 8;
constexpr size_t kMaxMtimes = 1'000'000;
constexpr size_t kMaxViews = 100'000;

Error no_such(const std::string& name) {
  return {Errc::not_found, cat(name, ": no such file or directory")};
}

// Names of a moving listing have no row to count by; a hash is stable for the name whatever comes
// and goes around it (as ext4's directories do).
uint64_t name_cookie(const std::string& name) {
  return (xxh3(as_bytes(name)) >> 2) + kFirstCookie + 1;
}

ListingPtr names_listing(const std::vector<std::string>& names) {
  auto listing = std::make_shared<Listing>();
  listing->is_moving = true;
  for (const std::string& name : names) {
    ListedName entry;
    entry.name = name;
    entry.cookie = name_cookie(name);
    entry.is_directory = true;
    listing->names.push_back(std::move(entry));
  }
  std::sort(listing->names.begin(), listing->names.end(),
            [](const ListedName& a, const ListedName& b) {
              return std::tie(a.cookie, a.name) < std::tie(b.cookie, b.name);
            });
  for (size_t i = 1; i < listing->names.size(); i++)
    listing->names[i].cookie = std::max(listing->names[i].cookie, listing->names[i - 1].cookie + 1);
  return listing;
}

std::optional<std::string> decode_revision(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    std::byte value{};
    if (text[i] == '%' && i + 2 < text.size() && parse_hex(text.substr(i + 1, 2), {&value, 1})) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  if (!is_valid_revision(out)) return std::nullopt;
  return out;
}

}  // namespace

FlatView::FlatView(Client& client, FlatViewOptions options)
    : client_(client), options_(std::move(options)), mounted_at_(unix_now()) {}

std::string FlatView::typed_prefix(RepoType type) const {
  return type == RepoType::model ? "" : cat(repo_type_plural(type), "/");
}

// --- rows ---

Result<ViewRow> FlatView::view_row(RowId view) {
  {
    MutexLock lock(mutex_);
    const auto found = views_.find(view);
    if (found != views_.end()) return found->second;
  }
  std::optional<ViewRow> row = CAKE_TRY(client_.store().index().find_view(view));
  if (!row) return Error{Errc::not_found, cat("directory ", view, " is not in the index")};
  MutexLock lock(mutex_);
  if (views_.size() >= kMaxViews) views_.clear();
  views_[view] = *row;
  return *row;
}

Result<RowId> FlatView::view_id(const ViewRow& row) {
  const std::pair<std::string, std::string> key{row.typed, row.commit};
  {
    MutexLock lock(mutex_);
    const auto found = view_ids_.find(key);
    if (found != view_ids_.end()) return found->second;
  }
  const RowId id = CAKE_TRY(client_.store().index().get_view(row));
  MutexLock lock(mutex_);
  if (view_ids_.size() >= kMaxViews) view_ids_.clear();
  view_ids_[key] = id;
  return id;
}

Result<FlatView::SnapshotPtr> FlatView::snapshot_of(const ViewRow& row) {
  SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(row.repo, row.commit));
  if (!snapshot)
    return Error{Errc::not_found, cat(row.repo.id, "@", row.commit, " is no longer in the store")};
  return snapshot;
}

Result<int64_t> FlatView::mtime_of(RowId content) {
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

// --- facts ---

Result<FlatView::NamesPlace> FlatView::names_place(uint64_t node) {
  NamesPlace place;
  if (node == kRootNode) {
    place.is_root = true;
    return place;
  }
  std::string typed = CAKE_TRY(view_row(node_payload(node))).typed;
  for (const RepoType type : {RepoType::dataset, RepoType::space}) {
    const std::string plural(repo_type_plural(type));
    if (typed == plural) {
      place.type = type;
      return place;
    }
    if (typed.starts_with(plural + "/")) {
      place.type = type;
      typed = typed.substr(plural.size() + 1);
    }
  }
  place.author = typed;
  return place;
}

Result<NodeFacts> FlatView::names_facts(const std::string& typed) {
  ViewRow row;
  row.layout = "flat";
  row.source = client_.source();
  row.typed = typed;
  NodeFacts facts;
  facts.node = names_node(CAKE_TRY(view_id(row)));
  facts.is_directory = true;
  facts.mtime = mounted_at_;
  facts.is_moving = true;
  return facts;
}

Result<NodeFacts> FlatView::tree_facts(RowId view, const Snapshot& snapshot, uint32_t ordinal,
                                       bool is_moving) {
  if (ordinal >= snapshot.nodes().size() || ordinal > kMaxOrdinal)
    return Error{Errc::not_found, cat("no entry ", ordinal, " in ", snapshot.repo().id)};
  const Node& node = snapshot.nodes()[ordinal];
  NodeFacts facts;
  facts.is_moving = is_moving;
  facts.is_directory = node.is_directory;
  if (node.is_directory) {
    facts.node = tree_node(view, ordinal);
    facts.mtime = snapshot.date();
    return facts;
  }
  const RowId content = snapshot.content_id(node.entry);
  facts.node = file_node(content);
  facts.bytes = snapshot.entries()[node.entry].bytes;
  facts.mtime = CAKE_TRY(mtime_of(content));
  return facts;
}

Result<NodeFacts> FlatView::root_of(const RepoName& repo, const std::string& typed,
                                    const SnapshotPtr& snapshot, bool is_moving) {
  ViewRow row;
  row.layout = "flat";
  row.source = client_.source();
  row.repo = repo;
  row.typed = typed;
  row.commit = snapshot->commit();
  const RowId view = CAKE_TRY(view_id(row));
  return tree_facts(view, *snapshot, 0, is_moving);
}

void FlatView::find_facts(uint64_t node, Deadline deadline, Done<NodeFacts> done) {
  NodeFacts facts;
  facts.node = node;
  facts.is_directory = true;
  facts.mtime = mounted_at_;
  facts.is_moving = true;
  switch (node_kind(node)) {
    case NodeKind::root:
      // Answered without the network: whoever stats the mount point must not wait for a hub.
      (void)deadline;
      done(facts);
      return;
    case NodeKind::names: {
      const Result<ViewRow> row = view_row(node_payload(node));
      done(row ? Result<NodeFacts>(facts) : Result<NodeFacts>(row.error()));
      return;
    }
    case NodeKind::tree: {
      const auto find = [&]() -> Result<NodeFacts> {
        const ViewRow row = CAKE_TRY(view_row(view_of_tree(node)));
        const SnapshotPtr snapshot = CAKE_TRY(snapshot_of(row));
        return tree_facts(row.id, *snapshot, ordinal_of_tree(node), false);
      };
      done(find());
      return;
    }
    case NodeKind::file: {
      const auto find = [&]() -> Result<NodeFacts> {
        const std::optional<ContentRow> row =
            CAKE_TRY(client_.store().index().find_content(node_payload(node)));
        if (!row)
          return Error{Errc::not_found,
                       cat("content ", node_payload(node), " is not in the index")};
        return NodeFacts{node, false, row->bytes, row->mtime, false};
      };
      done(find());
      return;
    }
  }
  done(Error{Errc::not_found, cat("no node ", node)});
}

bool FlatView::is_moving(uint64_t directory) const {
  return node_kind(directory) == NodeKind::names || directory == kRootNode;
}

Result<std::vector<std::pair<std::string, std::string>>> FlatView::directory_xattrs(uint64_t node) {
  std::vector<std::pair<std::string, std::string>> attributes;
  attributes.emplace_back("user.cake.source", client_.source());
  if (node_kind(node) == NodeKind::tree) {
    attributes.emplace_back("user.cake.commit", CAKE_TRY(view_row(view_of_tree(node))).commit);
  } else if (node == kRootNode && options_.single_repo) {
    const SnapshotPtr snapshot =
        CAKE_TRY(client_.find_known_snapshot(*options_.single_repo, options_.revision));
    if (snapshot) attributes.emplace_back("user.cake.commit", snapshot->commit());
  }
  return attributes;
}

// --- look-ups ---

void FlatView::look_up(uint64_t directory, const std::string& name, Deadline deadline,
                       Done<NodeFacts> done) {
  if (node_kind(directory) == NodeKind::tree) {
    done(look_up_in_tree(directory, name));
    return;
  }
  if (directory == kRootNode && options_.single_repo) {
    look_up_in_single(name, deadline, std::move(done));
    return;
  }
  const Result<NamesPlace> place = names_place(directory);
  if (!place) {
    done(place.error());
    return;
  }
  if (place->is_root)
    for (const RepoType type : {RepoType::dataset, RepoType::space})
      if (name == repo_type_plural(type)) {
        done(names_facts(name));
        return;
      }
  if (place->author.empty())
    look_up_author(*place, name, deadline, std::move(done));
  else
    look_up_repo(*place, name, deadline, std::move(done));
}

Result<NodeFacts> FlatView::look_up_in_tree(uint64_t directory, const std::string& name) {
  const ViewRow row = CAKE_TRY(view_row(view_of_tree(directory)));
  const SnapshotPtr snapshot = CAKE_TRY(snapshot_of(row));
  if (ordinal_of_tree(directory) >= snapshot->nodes().size()) return no_such(name);
  const std::optional<uint32_t> child = snapshot->find_child(ordinal_of_tree(directory), name);
  if (!child) return no_such(name);
  return tree_facts(row.id, *snapshot, *child, false);
}

void FlatView::look_up_author(const NamesPlace& place, const std::string& name, Deadline deadline,
                              Done<NodeFacts> done) {
  // Indexers, shells and editors probe for names that no author can have: no request.
  if (!is_valid_repo_part(name)) {
    done(no_such(name));
    return;
  }
  const std::string typed = typed_prefix(place.type) + name;
  client_.list_author(
      place.type, name, deadline,
      [this, typed, done = std::move(done)](const Result<std::vector<std::string>>& ids) {
        // A mirror without listings still serves repos by name.
        if (!ids && ids.error().code != Errc::upstream)
          done(ids.error());
        else
          done(names_facts(typed));
      });
}

void FlatView::look_up_repo(const NamesPlace& place, const std::string& name, Deadline deadline,
                            Done<NodeFacts> done) {
  const size_t at = name.find('@');
  const RepoName repo{place.type, cat(place.author, "/", name.substr(0, at))};
  const std::optional<std::string> revision =
      at == std::string::npos ? options_.revision
                              : decode_revision(std::string_view(name).substr(at + 1));
  if (!is_valid_repo_id(repo.id) || !revision) {
    done(no_such(name));
    return;
  }
  const std::string typed = cat(typed_prefix(place.type), place.author, "/", name);
  const bool is_moving_name = !is_commit(*revision);
  client_.find_snapshot(repo, *revision, false, deadline,
                        [this, repo, typed, is_moving_name,
                         done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
                          done(snapshot ? root_of(repo, typed, *snapshot, is_moving_name)
                                        : Result<NodeFacts>(snapshot.error()));
                        });
}

void FlatView::look_up_in_single(const std::string& name, Deadline deadline, Done<NodeFacts> done) {
  const RepoName repo = *options_.single_repo;
  client_.find_snapshot(
      repo, options_.revision, false, deadline,
      [this, repo, name, done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
        const auto find = [&]() -> Result<NodeFacts> {
          if (!snapshot) return snapshot.error();
          const NodeFacts root = CAKE_TRY(root_of(repo, "", *snapshot, true));
          NodeFacts facts = CAKE_TRY(look_up_in_tree(root.node, name));
          facts.is_moving = !is_commit(options_.revision);
          return facts;
        };
        done(find());
      });
}

// --- listings ---

void FlatView::list(uint64_t directory, Deadline deadline, Done<ListingPtr> done) {
  if (node_kind(directory) == NodeKind::tree) {
    done(list_tree(directory));
    return;
  }
  if (directory == kRootNode && options_.single_repo) {
    const RepoName repo = *options_.single_repo;
    client_.find_snapshot(
        repo, options_.revision, false, deadline,
        [this, repo, done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
          const auto find = [&]() -> Result<ListingPtr> {
            if (!snapshot) return snapshot.error();
            const NodeFacts root = CAKE_TRY(root_of(repo, "", *snapshot, true));
            auto listing = std::make_shared<Listing>(*CAKE_TRY(list_tree(root.node)));
            listing->is_moving = !is_commit(options_.revision);
            return ListingPtr(listing);
          };
          done(find());
        });
    return;
  }
  const Result<NamesPlace> place = names_place(directory);
  if (!place) {
    done(place.error());
    return;
  }
  if (place->author.empty()) {
    Result<std::vector<std::string>> authors = client_.known_authors(place->type);
    if (!authors) {
      done(authors.error());
      return;
    }
    if (place->is_root)
      for (const RepoType type : {RepoType::dataset, RepoType::space}) {
        // Reserved, and hidden until something of theirs is here.
        const Result<std::vector<std::string>> others = client_.known_authors(type);
        if (others && !others->empty()) authors->emplace_back(repo_type_plural(type));
      }
    done(names_listing(*authors));
    return;
  }
  client_.list_author(
      place->type, place->author, deadline,
      [done = std::move(done)](const Result<std::vector<std::string>>& ids) {
        // Not listed (a mirror, an author without public repos): names still work.
        std::vector<std::string> names;
        if (ids)
          for (const std::string& id : *ids) names.push_back(id.substr(id.find('/') + 1));
        else if (ids.error().code != Errc::upstream && ids.error().code != Errc::not_found) {
          done(ids.error());
          return;
        }
        done(names_listing(names));
      });
}

Result<ListingPtr> FlatView::list_tree(uint64_t directory) {
  {
    MutexLock lock(mutex_);
    for (auto place = listings_.begin(); place != listings_.end(); ++place)
      if (place->first == directory) {
        listings_.splice(listings_.begin(), listings_, place);
        return listings_.front().second;
      }
  }
  const ViewRow row = CAKE_TRY(view_row(view_of_tree(directory)));
  const SnapshotPtr snapshot = CAKE_TRY(snapshot_of(row));
  const uint32_t ordinal = ordinal_of_tree(directory);
  if (ordinal >= snapshot->nodes().size() || !snapshot->nodes()[ordinal].is_directory)
    return Error{Errc::not_found, cat("no directory ", ordinal, " in ", row.repo.id)};
  const Node& parent = snapshot->nodes()[ordinal];
  auto listing = std::make_shared<Listing>();
  listing->names.reserve(parent.child_count);
  for (uint32_t i = 0; i < parent.child_count; i++) {
    const uint32_t child = parent.first_child + i;
    const NodeFacts facts = CAKE_TRY(tree_facts(row.id, *snapshot, child, false));
    const std::string_view name = snapshot->nodes()[child].name;
    // The kernel has no names longer than that; the file exists, without one here.
    if (name.size() > 255) continue;
    listing->names.push_back({std::string(name), kFirstCookie + 1 + i, facts.is_directory,
                              facts.node, facts.bytes, facts.mtime});
  }
  MutexLock lock(mutex_);
  listings_.emplace_front(directory, listing);
  if (listings_.size() > kMaxListings) listings_.pop_back();
  return ListingPtr(listing);
}

}  // namespace cake
