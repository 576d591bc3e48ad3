// /.cake: the mount about itself.  status.json, events, repos/ORG/NAME.json.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "fs/event_log.h"
#include "fs/view_rows.h"
#include "store/base/metrics.h"

namespace cake {

struct StatusViewOptions {
  std::optional<RepoName> single_repo;  // set: no other is shown
};

// Files are made anew for whoever starts to read, on a thread of the store's pool: what is cached
// of a large repo takes a while to add up.  Thread-safe.
class StatusView final : public View {
 public:
  // All outlive this.
  StatusView(ViewRows& rows, Metrics& metrics, EventLog& events, StatusViewOptions options);
  // Waits for files that are being made.
  ~StatusView() override;

  Result<NodeFacts> top();

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
  struct Made {
    TextPtr text;
    SteadyTime at;
  };

  Result<NodeFacts> names(const std::string& typed) { return rows_.names_facts("cake", typed); }
  Result<std::string> typed_of(uint64_t node);
  void live_facts(uint64_t node, Done<NodeFacts> done);
  Result<NodeFacts> find_directory(const std::string& typed);
  // The names below repos/, "ORG/NAME.json" or "datasets/ORG/NAME.json" each.
  Result<std::vector<std::string>> repo_files();
  Result<TextPtr> make_text(const std::string& typed);
  Result<std::string> status_json();
  Result<std::string> repo_json(const RepoName& repo);

  // Constant after construction.
  ViewRows& rows_;
  Client& client_;
  Metrics& metrics_;
  EventLog& events_;
  const StatusViewOptions options_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar idle_;
  unsigned making_ GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Made> made_ GUARDED_BY(mutex_);  // what readers were given last
};

}  // namespace cake
