#include "store/glob.h"

#include <fnmatch.h>

#include <algorithm>

namespace cake {

bool matches_glob(const std::string& pattern, const std::string& path) {
  if (fnmatch(pattern.c_str(), path.c_str(), 0) == 0) return true;
  if (pattern.ends_with('/')) return fnmatch((pattern + "*").c_str(), path.c_str(), 0) == 0;
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  return pattern.find('/') == std::string::npos &&
         fnmatch(pattern.c_str(), path.c_str() + name, 0) == 0;
}

bool passes_globs(const std::vector<std::string>& include, const std::vector<std::string>& exclude,
                  const std::string& path) {
  const auto matches = [&](const std::string& pattern) { return matches_glob(pattern, path); };
  return (include.empty() || std::any_of(include.begin(), include.end(), matches)) &&
         std::none_of(exclude.begin(), exclude.end(), matches);
}

}  // namespace cake
