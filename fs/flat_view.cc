#include "fs/flat_view.h"

#include "fs/probe_names.h"

namespace cake {

namespace {

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

FlatView::FlatView(ViewRows& rows, FlatViewOptions options)
    : rows_(rows),
      client_(rows.client()),
      options_(std::move(options)),
      tree_(rows, "flat", CommitTree::Files::contents, options_.shown) {}

std::string FlatView::typed_prefix(RepoType type) const {
  return type == RepoType::model ? "" : cat(repo_type_plural(type), "/");
}

// --- facts ---

Result<FlatView::NamesPlace> FlatView::names_place(uint64_t node) {
  NamesPlace place;
  if (node == kRootNode) {
    place.is_root = true;
    return place;
  }
  std::string typed = CAKE_TRY(rows_.get(node_payload(node))).typed;
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

void FlatView::find_facts(uint64_t node, Deadline deadline, Done<NodeFacts> done) {
  NodeFacts facts;
  facts.node = node;
  facts.is_directory = true;
  facts.mtime = rows_.mounted_at();
  facts.is_moving = true;
  switch (node_kind(node)) {
    case NodeKind::root:
      // Answered without the network: whoever stats the mount point must not wait for a hub.
      (void)deadline;
      done(facts);
      return;
    case NodeKind::names: {
      const Result<ViewRow> row = rows_.get(node_payload(node));
      done(row ? Result<NodeFacts>(facts) : Result<NodeFacts>(row.error()));
      return;
    }
    case NodeKind::tree:
      done(tree_.find_facts(node));
      return;
    case NodeKind::file:
      done(rows_.file_facts(node_payload(node)));
      return;
    case NodeKind::link:
    case NodeKind::text:
    case NodeKind::live:
      break;  // other views'
  }
  done(Error{Errc::stale, cat("no node ", node)});
}

bool FlatView::is_moving(uint64_t directory) const {
  return node_kind(directory) == NodeKind::names || directory == kRootNode;
}

Result<std::vector<std::pair<std::string, std::string>>> FlatView::directory_xattrs(uint64_t node) {
  std::vector<std::pair<std::string, std::string>> attributes;
  attributes.emplace_back("user.cake.source", client_.source());
  if (node_kind(node) == NodeKind::tree) {
    attributes.emplace_back("user.cake.commit", CAKE_TRY(rows_.get(view_of_tree(node))).commit);
  } else if (node == kRootNode && options_.single_repo) {
    const SnapshotPtr snapshot =
        CAKE_TRY(client_.find_known_snapshot(*options_.single_repo, options_.revision));
    if (snapshot) attributes.emplace_back("user.cake.commit", snapshot->commit());
  }
  return attributes;
}

Result<std::string> FlatView::read_link(uint64_t node) {
  return Error{Errc::invalid, cat("node ", node, " is no link")};
}

void FlatView::read_text(uint64_t node, bool, Done<TextPtr> done) {
  done(Error{Errc::invalid, cat("node ", node, " is no made file")});
}

void FlatView::note_open(const ContentRow&) {}

// --- look-ups ---

void FlatView::look_up(uint64_t directory, const std::string& name, Deadline deadline,
                       Done<NodeFacts> done) {
  if (node_kind(directory) == NodeKind::tree) {
    done(tree_.look_up(directory, name));
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
        done(rows_.names_facts("flat", name));
        return;
      }
  if (place->author.empty())
    look_up_author(*place, name, deadline, std::move(done));
  else
    look_up_repo(*place, name, deadline, std::move(done));
}

void FlatView::look_up_author(const NamesPlace& place, const std::string& name, Deadline deadline,
                              Done<NodeFacts> done) {
  // Indexers, shells and editors probe for names that no author can have: no request.
  if (!is_valid_repo_part(name) || is_probed_as_author(name)) {
    done(no_such(name));
    return;
  }
  const std::string typed = typed_prefix(place.type) + name;
  client_.find_author(
      place.type, name, deadline,
      [this, typed, done = std::move(done)](const Result<std::monostate>& found) {
        done(found ? rows_.names_facts("flat", typed) : Result<NodeFacts>(found.error()));
      });
}

void FlatView::look_up_repo(const NamesPlace& place, const std::string& name, Deadline deadline,
                            Done<NodeFacts> done) {
  const size_t at = name.find('@');
  const RepoName repo{place.type, cat(place.author, "/", name.substr(0, at))};
  const std::optional<std::string> revision =
      at == std::string::npos ? options_.revision
                              : decode_revision(std::string_view(name).substr(at + 1));
  if (!is_valid_repo_id(repo.id) || !revision || is_probed_as_repo(name)) {
    done(no_such(name));
    return;
  }
  const std::string typed = cat(typed_prefix(place.type), place.author, "/", name);
  const bool is_moving_name = !is_commit(*revision);
  client_.find_snapshot(repo, *revision, false, deadline,
                        [this, repo, typed, is_moving_name,
                         done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
                          done(snapshot ? tree_.root(repo, typed, *snapshot, is_moving_name)
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
          const NodeFacts root = CAKE_TRY(tree_.root(repo, "", *snapshot, true));
          NodeFacts facts = CAKE_TRY(tree_.look_up(root.node, name));
          facts.is_moving = !is_commit(options_.revision);
          return facts;
        };
        done(find());
      });
}

// --- listings ---

void FlatView::list(uint64_t directory, Deadline deadline, Done<ListingPtr> done) {
  if (node_kind(directory) == NodeKind::tree) {
    done(tree_.list(directory));
    return;
  }
  if (directory == kRootNode && options_.single_repo) {
    const RepoName repo = *options_.single_repo;
    client_.find_snapshot(
        repo, options_.revision, false, deadline,
        [this, repo, done = std::move(done)](const Result<SnapshotPtr>& snapshot) {
          const auto find = [&]() -> Result<ListingPtr> {
            if (!snapshot) return snapshot.error();
            const NodeFacts root = CAKE_TRY(tree_.root(repo, "", *snapshot, true));
            const ListingPtr of_commit = CAKE_TRY(tree_.list(root.node));
            if (is_commit(options_.revision)) return of_commit;
            // Ordinals of one commit say nothing in the next, and a reader may go on in that.
            const std::string& commit = (*snapshot)->commit();
            if (ListingPtr kept = rows_.find_listing(kRootNode, commit)) return kept;
            const ListingPtr listing = moving_listing(of_commit->names);
            rows_.keep_listing(kRootNode, commit, listing);
            return listing;
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
    done(moving_listing(*authors));
    return;
  }
  client_.list_author(
      place->type, place->author, deadline,
      [done = std::move(done)](const Result<std::vector<std::string>>& ids) {
        // Not listed (a mirror, an author without public repos): names still work.
        std::vector<std::string> names;
        if (ids)
          for (const std::string& id : *ids) names.push_back(id.substr(id.find('/') + 1));
        else if (ids.error().code != Errc::unsupported && ids.error().code != Errc::not_found) {
          done(ids.error());
          return;
        }
        done(moving_listing(names));
      });
}

}  // namespace cake
