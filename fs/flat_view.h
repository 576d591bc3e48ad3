// The default layout: /ORG/NAME[@REV]/…, /datasets/ORG/NAME/…, /spaces/ORG/NAME/…; or one repo.
#pragma once

#include <optional>
#include <string>

#include "fs/commit_tree.h"
#include "fs/view_rows.h"

namespace cake {

struct FlatViewOptions {
  // Set: the root is this repo (hf:ORG/NAME@REV).
  std::optional<RepoName> single_repo;
  std::string revision = "main";  // of names without @REV
  ShownChoice shown;
};

// Thread-safe.
class FlatView final : public View {
 public:
  FlatView(ViewRows& rows, FlatViewOptions options);  // rows outlive this

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
  using SnapshotPtr = Client::SnapshotPtr;
  // A directory above repos, taken apart: "" (root), "datasets", "ORG", "datasets/ORG".
  struct NamesPlace {
    RepoType type = RepoType::model;
    std::string author;  // empty: authors are listed here
    bool is_root = false;
  };

  Result<NamesPlace> names_place(uint64_t node);
  void look_up_author(const NamesPlace& place, const std::string& name, Deadline deadline,
                      Done<NodeFacts> done);
  void look_up_repo(const NamesPlace& place, const std::string& name, Deadline deadline,
                    Done<NodeFacts> done);
  void look_up_in_single(const std::string& name, Deadline deadline, Done<NodeFacts> done);
  std::string typed_prefix(RepoType type) const;

  // Constant after construction.
  ViewRows& rows_;
  Client& client_;
  const FlatViewOptions options_;
  CommitTree tree_;  // synchronises itself
};

}  // namespace cake
