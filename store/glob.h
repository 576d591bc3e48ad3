// Patterns over the paths of a repo, as `hf download` has them.
#pragma once

#include <string>
#include <vector>

namespace cake {

// As fnmatch(3) does without FNM_PATHNAME: "*" matches slashes too.  "folder/" is all below it; a
// pattern without a slash is also tried on the last segment.
bool matches_glob(const std::string& pattern, const std::string& path);

// Whether `path` matches one of `include`, or that is empty, and none of `exclude`.
bool passes_globs(const std::vector<std::string>& include, const std::vector<std::string>& exclude,
                  const std::string& path);

}  // namespace cake
