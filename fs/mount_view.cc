#include "fs/mount_view.h"

namespace cake {

namespace {

// Hidden: they answer to their names and are in no listing.
constexpr std::string_view kHfFolder = ".hf";
constexpr std::string_view kStatusFolder = ".cake";

}  // namespace

MountView::MountView(Client& client, Metrics& metrics, EventLog& events,
                     const MountViewOptions& options)
    : is_hf_layout_(options.is_hf_layout),
      is_single_(options.single_repo.has_value()),
      rows_(client, events),
      flat_(rows_, {options.single_repo, options.revision, options.shown}),
      hf_(rows_, {options.single_repo, options.revision, options.shown}),
      status_(rows_, metrics, events, {options.single_repo}) {}

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
  if (layout == "cake") return &status_;
  return Error{Errc::stale, cat("no node ", node)};
}

void MountView::look_up(uint64_t directory, const std::string& name, Deadline deadline,
                        Done<NodeFacts> done) {
  const Result<View*> view = view_of(directory);
  if (!view) {
    done(view.error());
    return;
  }
  if (directory != kRootNode || (name != kHfFolder && name != kStatusFolder)) {
    (*view)->look_up(directory, name, deadline, std::move(done));
    return;
  }
  const auto top = [this, is_hf = name == kHfFolder] { return is_hf ? hf_.top() : status_.top(); };
  if (!is_single_) {
    done(top());
    return;
  }
  // A repo may have a file of that name, which is then what it says.
  (*view)->look_up(directory, name, deadline,
                   [top, done = std::move(done)](Result<NodeFacts> facts) {
                     if (!facts && facts.error().code == Errc::not_found)
                       done(top());
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

void MountView::read_text(uint64_t node, bool is_new, Done<TextPtr> done) {
  const Result<View*> view = view_of(node);
  if (view)
    (*view)->read_text(node, is_new, std::move(done));
  else
    done(view.error());
}

void MountView::note_open(const ContentRow& content) {
  status_.note_open(content);
}

bool MountView::is_moving(uint64_t directory) const {
  const Result<View*> view = view_of(directory);
  return view && (*view)->is_moving(directory);
}

}  // namespace cake
