// What a pull has to bring, and what it need not.
#pragma once

#include <string>
#include <vector>

#include "tools/file_choice.h"
#include "tools/transfer.h"

namespace cake {

struct PullTarget {
  std::string local_dir;  // plain files are written here too; empty: the store only
  bool force = false;     // what is there already is read and written again
};

// One chosen file.  The three add up to its size.
struct PlannedFile {
  TransferFile transfer;  // no ranges: nothing to do
  // Fetched before for this repo; or, with a target, a plain file that is right.
  uint64_t here_bytes = 0;
  // The same file is here under another repo, revision or hub, or is fetched for another name.
  uint64_t shared_bytes = 0;
  uint64_t fetch_bytes = 0;
};

// Whether a plain file is there with the hub's length and hash; false also when the hub gives none.
// io when something else than a file is there: it is not ours to replace.
Result<bool> has_hub_bytes(const std::string& path, const TreeEntry& entry);

// In the order of the snapshot.  Files that are complete elsewhere are taken over, which takes no
// space; for a dry run they are only counted.
enum class PullUse { pull, look };
Result<std::vector<PlannedFile>> plan_pull(Store& store, const Snapshot& snapshot,
                                           const FileChoice& choice, const PullTarget& target,
                                           PullUse use);

}  // namespace cake
