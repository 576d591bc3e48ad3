// Plain files that share their blocks with the store (reflink), for `export --link` and
// `import --replace`.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>

#include "store/materialize.h"
#include "tools/command.h"

namespace cake {

// Whether the path still leads to the file that `seen` was told of, and nobody wrote to it since.
bool is_unchanged(const std::string& path, const struct stat& seen);

// Confined to its thread.
class BlockSharing {
 public:
  // The store outlives this.
  static Result<BlockSharing> open(const Context& context, Store& store);

  // Whether files in this directory can share blocks with the store's.
  // unsupported: another file system, or one without reflinks (those with: XFS, Btrfs, bcachefs).
  Status check(const std::string& directory) const;

  // Makes `target` the content's bytes, in place of what is there (whose mode, owner and time the
  // new file takes).  The store keeps the content materialized for it, checked against the hub's
  // hash, which takes a while for a large one.  With `seen`, of the target before its bytes were
  // compared, a target that is another by then stays, and so does one whose copy here is damaged.
  enum class Put {
    done,
    not_possible,    // too small to share, or not here completely
    target_changed,  // since it was seen
    damaged,         // what the store has is not what the target was
  };
  struct Seen {
    const struct stat& facts;
    const TreeEntry& entry;  // whose bytes it has
  };
  Result<Put> put(RowId content, const std::string& target, const Seen* seen = nullptr) const;

 private:
  BlockSharing(Store& store, std::unique_ptr<Materializer> materializer, MaterializeOptions options)
      : store_(store), materializer_(std::move(materializer)), options_(std::move(options)) {}

  Store& store_;
  std::unique_ptr<Materializer> materializer_;
  MaterializeOptions options_;
};

}  // namespace cake
