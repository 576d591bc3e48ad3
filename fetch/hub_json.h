// What a hub's answers say: JSON texts of the protocol, made and read.  Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/hub_content.h"

namespace cake {

// As a caller without access to a gated repo sees it, hashes are 64 stars.
struct HubPageOptions {
  bool is_masked = false;
  size_t limit = 1'000;
  std::string cursor;  // only what sorts behind it
};

// One page of a list: its JSON, and the cursor of the next when there is one.
struct HubPage {
  std::string body;
  std::optional<std::string> next;
};

// `repos` sorted by id.
HubPage hub_repos_json(RepoType type, const std::vector<HubRepo>& repos,
                       const HubPageOptions& options);
// nullopt: the directory does not exist.
std::optional<HubPage> hub_tree_json(const HubRevision& revision, const std::string& directory,
                                     bool is_recursive, const HubPageOptions& options);
std::string hub_info_json(const RepoName& repo, const HubRevision& revision, bool is_masked,
                          bool has_blobs);
std::string hub_refs_json(const std::vector<HubRef>& refs, bool with_pull_requests);
std::string hub_commits_json(const HubRevision& revision);
std::string hub_tree_size_json(const HubRevision& revision, const std::string& directory);
std::string hub_paths_json(const HubRevision& revision, const std::vector<std::string>& paths,
                           bool is_masked);
std::string hub_user_json();
std::string hub_error_json(std::string_view message);

// The paths that a body asks about, JSON or a form; at most `limit` + 1 of them.
std::vector<std::string> parse_asked_paths(std::string_view body, size_t limit);

}  // namespace cake
