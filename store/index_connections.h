// A connection to read the index and one to write it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "store/base/mutex.h"
#include "store/sqlite.h"

namespace cake {

// Two, so that no reader waits for a writer's transaction.  Who uses one holds its lock.
struct IndexConnections {
  // `prepare` runs on the writer before the reader is opened.
  static Result<std::unique_ptr<IndexConnections>> open(
      const std::string& path, const std::function<Status(Connection&)>& prepare);
  // What the writer commits is on the disk when the commit returns (synchronous=FULL).
  static Result<std::unique_ptr<IndexConnections>> open_durable(const std::string& path);

  IndexConnections(std::unique_ptr<Connection> read_connection,
                   std::unique_ptr<Connection> write_connection)
      : reader(std::move(read_connection)), writer(std::move(write_connection)) {}

  // Leaf locks, held over SQLite calls; never both.
  Mutex read_mutex;
  const std::unique_ptr<Connection> reader PT_GUARDED_BY(read_mutex);
  Mutex write_mutex;
  const std::unique_ptr<Connection> writer PT_GUARDED_BY(write_mutex);
};

// All commits so far, whoever's, are on the disk when it returns.  `synchronous`: what the
// connection's own commits are otherwise.
Status sync_commits(Connection& writer, std::string_view synchronous);

}  // namespace cake
