#include "store/index.h"

#include <utility>

#include "store/base/file.h"
#include "store/index_connections.h"
#include "store/index_schema.h"

namespace cake {

Index::Index(std::unique_ptr<IndexConnections> connections)
    : connections_(std::move(connections)) {}
Index::~Index() = default;

Result<std::unique_ptr<Index>> Index::open(const std::string& path) {
  // Turning WAL on and migrating are not covered by SQLite's busy timeout: one opener at a time.
  // The lock file stays; its holder never lasts longer than this function.
  const File lock = CAKE_TRY(File::open(path + ".lock", File::Mode::create));
  CAKE_TRY(lock.lock({}, true));
  std::unique_ptr<IndexConnections> connections = CAKE_TRY(IndexConnections::open(
      path, [&](Connection& writer) { return migrate_index(writer, path); }));
  return std::unique_ptr<Index>(new Index(std::move(connections)));
}

}  // namespace cake
