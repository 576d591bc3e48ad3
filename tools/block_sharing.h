// Plain files that share their blocks with the store (reflink), for `export --link` and
// `import --replace`.
#pragma once

#include <memory>
#include <string>

#include "store/materialize.h"
#include "tools/command.h"

namespace cake {

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
  // hash.  False: too small to share, or not here completely.
  Result<bool> put(RowId content, const std::string& target) const;

 private:
  BlockSharing(Store& store, std::unique_ptr<Materializer> materializer, MaterializeOptions options)
      : store_(store), materializer_(std::move(materializer)), options_(std::move(options)) {}

  Store& store_;
  std::unique_ptr<Materializer> materializer_;
  MaterializeOptions options_;
};

}  // namespace cake
