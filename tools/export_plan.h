// Where the files of a snapshot go in an export.
#pragma once

#include <string>
#include <vector>

#include "tools/transfer.h"

namespace cake {

enum class ExportLayout {
  flat,  // PATH
  hf,    // as a Hugging Face cache: models--ORG--NAME/{blobs,snapshots,refs}
};

struct ExportPlan {
  std::string path;                 // where the repo can be read afterwards
  std::vector<TransferFile> files;  // to write; those that are there and right are left out
  uint64_t kept = 0;                // of those
  // Symbolic links (path, text) and small files (path, text), made when the files are there.
  std::vector<std::pair<std::string, std::string>> links, texts;
};

// `revision`: the branch or tag that was asked for, for refs/; a commit has none.
Result<ExportPlan> plan_export(const Snapshot& snapshot, const std::vector<uint32_t>& entries,
                               const std::string& revision, const std::string& directory,
                               ExportLayout layout);
// Makes links and small files.  Replaces what is there.
Status finish_export(const ExportPlan& plan);

}  // namespace cake
