// Which files of a repo `cake pull` takes.
#pragma once

#include <string>
#include <vector>

#include "store/snapshot.h"

namespace cake {

struct FileChoice {
  std::vector<std::string> files;  // paths or folders as given; empty for all
  std::vector<std::string> include, exclude;
  // Also weights that are there in a format that loaders prefer.
  bool all_formats = false;
};

// Indices of chosen entries, in their order.  not_found names the first of `files` that is absent.
// What is asked for by name or by `include` is taken whatever its format.
Result<std::vector<uint32_t>> choose_files(const Snapshot& snapshot, const FileChoice& choice);

}  // namespace cake
