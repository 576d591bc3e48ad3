#include "fs/hf_view.h"

#include <algorithm>

namespace cake {

namespace {

constexpr size_t kMaxTreeTexts = 4;
constexpr const char* kLayout = "hf";
// "/.hf" itself: no folder of the hub has this name.
constexpr std::string_view kTop = ".";
constexpr std::string_view kHubName = "hub";
constexpr std::string_view kAbsent = ".no_exist";
constexpr std::string_view kTreeSuffix = ".json";

// Made files beside the repos.  Clients write them when they are missing.
constexpr std::pair<std::string_view, std::string_view> kHubFiles[] = {
    // https://bford.info/cachedir/
    {"CACHEDIR.TAG",
     "Signature: 8a477f597d28d172789f06886806bc55\n"
     "# A mount of cakefs: made of what a hub offers, and not to be backed up.\n"},
    // transformers before 4.40: without it they try to move the cache to a newer layout.
    {"version.txt", "1"},
};

std::string join(const std::string& above, const std::string& name) {
  return above.empty() ? name : cat(above, "/", name);
}

std::string typed_in(const RepoName& repo, std::string_view rest) {
  return cat(hf_folder(repo), "/", rest);
}

// Folders of refs that hubs have; others are known by the refs in them.
bool is_ref_folder(const std::string& name) {
  return name == "refs" || name == "refs/pr" || name == "refs/convert" || name == "refs/heads" ||
         name == "refs/tags";
}

}  // namespace

HfView::HfView(ViewRows& rows, HfViewOptions options)
    : rows_(rows),
      client_(rows.client()),
      options_(std::move(options)),
      known_(rows),
      tree_(rows, kLayout, CommitTree::Files::links, options_.shown) {}

Result<NodeFacts> HfView::top() {
  return names(std::string(kTop));
}

Result<NodeFacts> HfView::hub() {
  return names("");
}

bool HfView::is_shown(const RepoName& repo) const {
  return !options_.single_repo || *options_.single_repo == repo;
}

Result<HfPlace> HfView::place_of(uint64_t node) {
  if (node == kRootNode) return HfPlace{};
  const std::string typed = CAKE_TRY(rows_.get(node_payload(node))).typed;
  std::optional<HfPlace> place = parse_hf_place(typed);
  if (!place) return Error{Errc::corrupt, cat("'", typed, "' is no folder of this layout")};
  return std::move(*place);
}

bool HfView::is_moving(uint64_t directory) const {
  return node_kind(directory) != NodeKind::tree;
}

// --- facts ---

Result<NodeFacts> HfView::text_facts(const RepoName& repo, const std::string& typed,
                                     const std::string& commit, bool is_moving) {
  ViewRow row;
  row.layout = kLayout;
  row.source = client_.source();
  row.repo = repo;
  row.typed = typed;
  row.commit = commit;
  NodeFacts facts;
  facts.node = make_node(NodeKind::text, CAKE_TRY(rows_.id_of(row)));
  facts.bytes = CAKE_TRY(text_of(row))->size();
  facts.mtime = rows_.mounted_at();
  facts.is_moving = is_moving;
  return facts;
}

Result<TextPtr> HfView::text_of(const ViewRow& row) {
  for (const auto& [name, text] : kHubFiles)
    if (row.typed == name) return std::make_shared<const std::string>(text);
  if (row.typed == kAbsent) return std::make_shared<const std::string>();
  const std::string_view below = std::string_view(row.typed).substr(hf_folder(row.repo).size());
  if (below.starts_with("/refs/")) return std::make_shared<const std::string>(row.commit);
  {
    MutexLock lock(mutex_);
    for (const auto& [commit, text] : tree_texts_)
      if (commit == row.commit) return text;
  }
  const SnapshotPtr snapshot = CAKE_TRY(rows_.snapshot_of(row));
  const TextPtr text = std::make_shared<const std::string>(hf_tree_json(*snapshot));
  MutexLock lock(mutex_);
  tree_texts_.emplace_front(row.commit, text);
  if (tree_texts_.size() > kMaxTreeTexts) tree_texts_.pop_back();
  return text;
}

void HfView::find_facts(uint64_t node, Deadline, Done<NodeFacts> done) {
  const auto find = [&]() -> Result<NodeFacts> {
    switch (node_kind(node)) {
      case NodeKind::tree:
      case NodeKind::link:
        return tree_.find_facts(node);
      case NodeKind::file:
        return rows_.file_facts(node_payload(node));
      case NodeKind::text: {
        const ViewRow row = CAKE_TRY(rows_.get(node_payload(node)));
        return text_facts(row.repo, row.typed, row.commit, false);
      }
      case NodeKind::names:
        return names(CAKE_TRY(rows_.get(node_payload(node))).typed);
      case NodeKind::root: {
        NodeFacts facts = CAKE_TRY(hub());
        facts.node = node;
        return facts;
      }
      case NodeKind::live:
        break;  // another view's
    }
    return Error{Errc::stale, cat("no node ", node)};
  };
  done(find());
}

Result<std::vector<std::pair<std::string, std::string>>> HfView::directory_xattrs(uint64_t node) {
  std::vector<std::pair<std::string, std::string>> attributes;
  attributes.emplace_back("user.cake.source", client_.source());
  if (node_kind(node) == NodeKind::tree)
    attributes.emplace_back("user.cake.commit", CAKE_TRY(rows_.get(view_of_tree(node))).commit);
  return attributes;
}

Result<std::string> HfView::read_link(uint64_t node) {
  const SnapshotPtr snapshot = CAKE_TRY(tree_.snapshot_at(node));
  if (ordinal_of_tree(node) >= snapshot->nodes().size() ||
      snapshot->nodes()[ordinal_of_tree(node)].is_directory)
    return Error{Errc::invalid, cat("node ", node, " is no link")};
  return hf_link_target(*snapshot, ordinal_of_tree(node));
}

void HfView::read_text(uint64_t node, bool, Done<TextPtr> done) {
  const Result<ViewRow> row = rows_.get(node_payload(node));
  done(row ? text_of(*row) : Result<TextPtr>(row.error()));
}

void HfView::note_open(const ContentRow&) {}

// --- look-ups ---

void HfView::look_up(uint64_t directory, const std::string& name, Deadline deadline,
                     Done<NodeFacts> done) {
  if (node_kind(directory) == NodeKind::tree) {
    done(tree_.look_up(directory, name));
    return;
  }
  if (directory != kRootNode) {
    const Result<ViewRow> row = rows_.get(node_payload(directory));
    if (row && row->typed == kTop) {
      done(name == kHubName ? hub() : Result<NodeFacts>(no_such(name)));
      return;
    }
  }
  const Result<HfPlace> place = place_of(directory);
  if (!place) {
    done(place.error());
    return;
  }
  switch (place->kind) {
    case HfPlace::Kind::hub:
      look_up_repo(name, deadline, std::move(done));
      return;
    case HfPlace::Kind::repo:
      done(look_up_in_repo(*place, name));
      return;
    case HfPlace::Kind::refs:
      look_up_ref(*place, name, deadline, std::move(done));
      return;
    case HfPlace::Kind::blobs:
      done(look_up_blob(*place, name));
      return;
    case HfPlace::Kind::snapshots:
      look_up_commit(*place, name, false, deadline, std::move(done));
      return;
    case HfPlace::Kind::trees:
      look_up_commit(*place, name, true, deadline, std::move(done));
      return;
    case HfPlace::Kind::no_exist:
    case HfPlace::Kind::no_exist_commit:
      done(look_up_absent(*place, name));
      return;
  }
}

void HfView::look_up_repo(const std::string& name, Deadline deadline, Done<NodeFacts> done) {
  for (const auto& file : kHubFiles)
    if (name == file.first) {
      done(text_facts({}, name, "", false));
      return;
    }
  const std::optional<RepoName> repo = parse_hf_folder(name);
  // .locks, and whatever else is looked for beside repos: no request.
  if (!repo || !is_shown(*repo)) {
    done(no_such(name));
    return;
  }
  const Result<bool> is_known = known_.has_repo(*repo);
  if (is_known && *is_known) {
    done(names(name));
    return;
  }
  client_.find_snapshot(*repo, options_.revision, false, deadline,
                        [this, name, done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
                          done(snapshot ? names(name) : Result<NodeFacts>(snapshot.error()));
                        });
}

Result<NodeFacts> HfView::look_up_in_repo(const HfPlace& place, const std::string& name) {
  const std::string typed = typed_in(place.repo, name);
  // What parses as a folder of the repo is one.
  const std::optional<HfPlace> child = parse_hf_place(typed);
  if (!child || child->kind == HfPlace::Kind::repo) return no_such(name);
  return names(typed);
}

void HfView::look_up_ref(const HfPlace& place, const std::string& name, Deadline deadline,
                         Done<NodeFacts> done) {
  const std::string revision = join(place.rest, name);
  if (name.starts_with('.') || !is_valid_revision(revision) || is_commit(revision)) {
    done(no_such(name));
    return;
  }
  const std::string typed = typed_in(place.repo, cat("refs/", revision));
  const Result<std::vector<RefRow>> refs = known_.refs(place.repo);
  if (!refs) {
    done(refs.error());
    return;
  }
  const bool is_folder =
      is_ref_folder(revision) || std::any_of(refs->begin(), refs->end(), [&](const RefRow& ref) {
        return ref.revision.starts_with(revision + "/");
      });
  if (is_folder) {
    done(names(typed));
    return;
  }
  client_.find_snapshot(place.repo, revision, false, deadline,
                        [this, repo = place.repo, typed,
                         done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
                          done(snapshot ? text_facts(repo, typed, (*snapshot)->commit(), true)
                                        : Result<NodeFacts>(snapshot.error()));
                        });
}

void HfView::look_up_commit(const HfPlace& place, const std::string& name, bool is_tree,
                            Deadline deadline, Done<NodeFacts> done) {
  std::string commit = name;
  if (is_tree && commit.ends_with(kTreeSuffix)) commit.resize(commit.size() - kTreeSuffix.size());
  if (!is_commit(commit) || (commit == name) == is_tree) {
    done(no_such(name));
    return;
  }
  const std::string typed = typed_in(place.repo, cat(is_tree ? "trees/" : "snapshots/", name));
  client_.find_snapshot(place.repo, commit, false, deadline,
                        [this, repo = place.repo, typed, is_tree,
                         done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
                          if (!snapshot)
                            done(snapshot.error());
                          else if (is_tree)
                            done(text_facts(repo, typed, (*snapshot)->commit(), false));
                          else
                            done(tree_.root(repo, typed, *snapshot, false));
                        });
}

Result<NodeFacts> HfView::look_up_blob(const HfPlace& place, const std::string& name) {
  const std::optional<RowId> content = CAKE_TRY(known_.find_blob(place.repo, name));
  if (!content) return no_such(name);
  return rows_.file_facts(*content);
}

Result<NodeFacts> HfView::look_up_absent(const HfPlace& place, const std::string& name) {
  const std::string commit = place.kind == HfPlace::Kind::no_exist ? name : place.commit;
  if (!is_commit(commit)) return no_such(name);
  const SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(place.repo, commit));
  // Only of a commit whose files are known can anything be said to be absent.
  if (!snapshot) return no_such(name);
  if (place.kind == HfPlace::Kind::no_exist)
    return names(typed_in(place.repo, cat(kAbsent, "/", name)));
  const std::string path = join(place.rest, name);
  if (!is_valid_repo_path(path)) return no_such(name);
  const std::optional<uint32_t> node = snapshot->find_path(path);
  if (!node) return text_facts({}, std::string(kAbsent), "", false);
  if (!snapshot->nodes()[*node].is_directory) return no_such(name);
  return names(typed_in(place.repo, cat(kAbsent, "/", commit, "/", path)));
}

// --- listings ---

void HfView::list(uint64_t directory, Deadline, Done<ListingPtr> done) {
  done(node_kind(directory) == NodeKind::tree ? tree_.list(directory) : list_place(directory));
}

Result<ListingPtr> HfView::list_place(uint64_t directory) {
  if (directory != kRootNode && CAKE_TRY(rows_.get(node_payload(directory))).typed == kTop)
    return moving_listing(std::vector<std::string>{std::string(kHubName)});
  const HfPlace place = CAKE_TRY(place_of(directory));
  switch (place.kind) {
    case HfPlace::Kind::hub:
      return list_hub();
    case HfPlace::Kind::repo:
      return moving_listing(std::vector<std::string>{"blobs", "refs", "snapshots"});
    case HfPlace::Kind::refs:
      return list_refs(place);
    case HfPlace::Kind::blobs:
      return list_blobs(directory, place);
    case HfPlace::Kind::snapshots:
      return moving_listing(CAKE_TRY(known_.commits(place.repo)));
    case HfPlace::Kind::trees: {
      std::vector<ListedName> names;
      const std::vector<std::string> commits = CAKE_TRY(known_.commits(place.repo));
      for (const std::string& commit : commits)
        names.emplace_back().name = cat(commit, kTreeSuffix);
      return moving_listing(std::move(names));
    }
    case HfPlace::Kind::no_exist:
    case HfPlace::Kind::no_exist_commit:
      break;
  }
  return moving_listing(std::vector<ListedName>{});
}

Result<ListingPtr> HfView::list_hub() {
  std::vector<std::string> folders;
  const std::vector<RepoName> repos = CAKE_TRY(known_.repos());
  for (const RepoName& repo : repos)
    if (is_shown(repo)) folders.push_back(hf_folder(repo));
  return moving_listing(folders);
}

Result<ListingPtr> HfView::list_refs(const HfPlace& place) {
  const std::vector<RefRow> refs = CAKE_TRY(known_.refs(place.repo));
  const std::string prefix = place.rest.empty() ? "" : place.rest + "/";
  std::vector<ListedName> names;
  for (const RefRow& ref : refs) {
    if (!ref.revision.starts_with(prefix)) continue;
    ListedName name;
    name.name = ref.revision.substr(prefix.size());
    if (const size_t slash = name.name.find('/'); slash != std::string::npos) {
      name.name.resize(slash);
      name.is_directory = true;
    }
    const bool is_there = std::any_of(names.begin(), names.end(), [&](const ListedName& other) {
      return other.name == name.name;
    });
    if (!is_there && !name.name.empty()) names.push_back(std::move(name));
  }
  return moving_listing(std::move(names));
}

Result<ListingPtr> HfView::list_blobs(uint64_t directory, const HfPlace& place) {
  const std::vector<std::string> commits = CAKE_TRY(known_.commits(place.repo));
  std::string state;
  for (const std::string& commit : commits) state += commit;
  if (ListingPtr kept = rows_.find_listing(directory, state)) return kept;
  ListingPtr listing = moving_listing(CAKE_TRY(known_.blobs(place.repo, commits)));
  rows_.keep_listing(directory, state, listing);
  return listing;
}

}  // namespace cake
