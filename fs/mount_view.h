// What a mount shows: its layout at the root, and the hidden folders beside it.
#pragma once

#include <optional>
#include <string>

#include "fs/flat_view.h"
#include "fs/hf_view.h"
#include "fs/status_view.h"

namespace cake {

struct MountViewOptions {
  std::optional<RepoName> single_repo;  // the root is this repo
  std::string revision = "main";        // of names without @REV
  bool is_hf_layout = false;            // the root is the Hugging Face cache
  ShownChoice shown;
};

// Sends each question to the view that the node belongs to: a directory's layout is in its row, so
// that a fresh worker knows it too.  Thread-safe.
class MountView final : public View {
 public:
  // Client, metrics and events outlive this.
  MountView(Client& client, Metrics& metrics, EventLog& events, const MountViewOptions& options);

  void look_up(uint64_t directory, const std::string& name, Deadline deadline,
               Done<NodeFacts> done) override;
  void list(uint64_t directory, Deadline deadline, Done<ListingPtr> done) override;
  void find_facts(uint64_t node, Deadline deadline, Done<NodeFacts> done) override;
  Result<std::vector<std::pair<std::string, std::string>>> directory_xattrs(uint64_t node) override;
  Result<std::string> read_link(uint64_t node) override;
  void read_text(uint64_t node, bool is_new, Done<TextPtr> done) override;
  void note_open(const ContentRow& content) override;
  bool is_moving(uint64_t directory) const override;

 private:
  Result<View*> view_of(uint64_t node) const;

  const bool is_hf_layout_;
  const bool is_single_;
  // Each synchronises itself.
  mutable ViewRows rows_;
  mutable FlatView flat_;
  mutable HfView hf_;
  mutable StatusView status_;
};

}  // namespace cake
