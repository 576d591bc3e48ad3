// The hub as a Hugging Face cache folder: /.hf/hub, for clients that look for models there.
#pragma once

#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fs/commit_tree.h"
#include "fs/hf_known.h"
#include "fs/hf_names.h"
#include "fs/view_rows.h"

namespace cake {

struct HfViewOptions {
  std::optional<RepoName> single_repo;  // set: no other is shown
  std::string revision = "main";        // that a repo is known to exist by
  ShownChoice shown;
};

// Names are made when they are looked up: any repo of the hub, any of its revisions and commits.
// Listings show what is known here.  trees/ and .no_exist/ answer when asked and are not listed, as
// are CACHEDIR.TAG and version.txt: what a client would want to write when it is missing.
//
// Thread-safe.
class HfView final : public View {
 public:
  HfView(ViewRows& rows, HfViewOptions options);  // rows outlive this

  // "/.hf", whose one entry is the hub folder; and that folder, which may be a mount's root.
  Result<NodeFacts> top();
  Result<NodeFacts> hub();

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
  Result<HfPlace> place_of(uint64_t node);
  bool is_shown(const RepoName& repo) const;
  void look_up_repo(const std::string& name, Deadline deadline, Done<NodeFacts> done);
  void look_up_ref(const HfPlace& place, const std::string& name, Deadline deadline,
                   Done<NodeFacts> done);
  void look_up_commit(const HfPlace& place, const std::string& commit, bool is_tree,
                      Deadline deadline, Done<NodeFacts> done);
  Result<NodeFacts> look_up_in_repo(const HfPlace& place, const std::string& name);
  Result<NodeFacts> look_up_blob(const HfPlace& place, const std::string& name);
  Result<NodeFacts> look_up_absent(const HfPlace& place, const std::string& name);

  Result<ListingPtr> list_place(uint64_t directory);
  Result<ListingPtr> list_hub();
  Result<ListingPtr> list_refs(const HfPlace& place);
  Result<ListingPtr> list_blobs(uint64_t directory, const HfPlace& place);

  Result<NodeFacts> names(const std::string& typed) { return rows_.names_facts("hf", typed); }
  // A made file; its row tells what it says.
  Result<NodeFacts> text_facts(const RepoName& repo, const std::string& typed,
                               const std::string& commit, bool is_moving);
  Result<TextPtr> text_of(const ViewRow& row) EXCLUDES(mutex_);

  // Constant after construction.
  ViewRows& rows_;
  Client& client_;
  const HfViewOptions options_;
  HfKnown known_;    // synchronises itself
  CommitTree tree_;  // synchronises itself

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::list<std::pair<std::string, TextPtr>> tree_texts_ GUARDED_BY(mutex_);  // by commit
};

}  // namespace cake
