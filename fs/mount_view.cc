#include "fs/mount_view.h"

namespace cake {

namespace {

constexpr std::string_view kHfFolder = ".hf";

}  // namespace

MountView::MountView(Client& client, const MountViewOptions& options)
    : is_hf_layout_(options.is_hf_layout),
      is_single_(options.single_repo.has_value()),
      rows_(client),
      flat_(rows_, {options.single_repo, options.revision}),
      hf_(rows_, {options.single_repo, options.revision}) {}

Result<View*> MountView::view_of(uint64_t node) const {
  std::string layout;
  switch (node_kind(node)) {
    case NodeKind::root:
      layout = is_hf_layout_ ? "hf" : "flat";
      break;
    case NodeKind::file:
      layout = "flat";
      break;
    case NodeKind::tree:
    case NodeKind::link:
      layout = CAKE_TRY(rows_.get(view_of_tree(node))).layout;
      break;
    case NodeKind::names:
    case NodeKind::text:
    case NodeKind::live:
      layout = CAKE_TRY(rows_.get(node_payload(node))).layout;
      break;
  }
  if (layout == "flat") return &flat_;
  if (layout == "hf") return &hf_;
  return Error{Errc::not_found, cat("no node ", node)};
}

void MountView::look_up(uint64_t directory, const std::string& name, Deadline deadline,
                        Done<NodeFacts> done) {
  const Result<View*> view = view_of(directory);
  if (!view) {
    done(view.error());
    return;
  }
  if (directory != kRootNode || name != kHfFolder) {
    (*view)->look_up(directory, name, deadline, std::move(done));
    return;
  }
  if (!is_single_) {
    done(hf_.top());
    return;
  }
  // A repo may have a file of that name, which is then what it says.
  (*view)->look_up(directory, name, deadline,
                   [this, done = std::move(done)](Result<NodeFacts> facts) {
                     if (!facts && facts.error().code == Errc::not_found)
                       done(hf_.top());
                     else
                       done(std::move(facts));
                   });
}

void MountView::list(uint64_t directory, Deadline deadline, Done<ListingPtr> done) {
  const Result<View*> view = view_of(directory);
  if (view)
    (*view)->list(directory, deadline, std::move(done));
  else
    done(view.error());
}

void MountView::find_facts(uint64_t node, Deadline deadline, Done<NodeFacts> done) {
  const Result<View*> view = view_of(node);
  if (view)
    (*view)->find_facts(node, deadline, std::move(done));
  else
    done(view.error());
}

Result<std::vector<std::pair<std::string, std::string>>> MountView::directory_xattrs(
    uint64_t node) {
  View* view = CAKE_TRY(view_of(node));
  return view->directory_xattrs(node);
}

Result<std::string> MountView::read_link(uint64_t node) {
  View* view = CAKE_TRY(view_of(node));
  return view->read_link(node);
}

Result<TextPtr> MountView::read_text(uint64_t node, bool is_new) {
  View* view = CAKE_TRY(view_of(node));
  return view->read_text(node, is_new);
}

bool MountView::is_moving(uint64_t directory) const {
  const Result<View*> view = view_of(directory);
  return view && (*view)->is_moving(directory);
}

}  // namespace cake
