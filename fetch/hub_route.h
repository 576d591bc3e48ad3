// What a URL of the hub's protocol asks for.  Pure; input is hostile.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "store/snapshot.h"

namespace cake {

struct HubRoute {
  enum class Kind {
    none,  // no such route
    malformed,
    whoami,
    list,  // repos of a type
    info,
    tree,
    paths_info,
    commits,
    tree_size,
    refs,
    auth_check,
    resolve,
    raw,
    resolve_cache,
  };
  Kind kind = Kind::none;
  bool is_api = false;
  RepoName repo;
  std::string revision = "main";
  std::string path;  // decoded, without trailing slashes
};

// `path` as sent.  `has_repo` decides where "A/B" may be a repo, or the repo A and a verb.
HubRoute parse_hub_route(std::string_view path,
                         const std::function<bool(const RepoName&)>& has_repo);

}  // namespace cake
