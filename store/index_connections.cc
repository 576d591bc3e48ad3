#include "store/index_connections.h"

#include <utility>

namespace cake {

Result<std::unique_ptr<IndexConnections>> IndexConnections::open(
    const std::string& path, const std::function<Status(Connection&)>& prepare) {
  std::unique_ptr<Connection> writer =
      CAKE_TRY(Connection::open(path, Connection::Mode::read_write));
  CAKE_TRY(prepare(*writer));
  std::unique_ptr<Connection> reader =
      CAKE_TRY(Connection::open(path, Connection::Mode::read_only));
  return std::make_unique<IndexConnections>(std::move(reader), std::move(writer));
}

Result<std::unique_ptr<IndexConnections>> IndexConnections::open_durable(const std::string& path) {
  return open(path, [](Connection& db) { return db.execute("PRAGMA synchronous = FULL;"); });
}

Status sync_commits(Connection& writer, std::string_view synchronous) {
  CAKE_TRY(writer.execute("PRAGMA synchronous = FULL;"));
  // A commit syncs the log, and so those before it; one that changed nothing would not.
  Status synced = writer.execute(
      "INSERT INTO meta (key, value) VALUES ('syncs', 1)"
      " ON CONFLICT (key) DO UPDATE SET value = value + 1");
  CAKE_TRY(writer.execute(cat("PRAGMA synchronous = ", synchronous, ";")));
  return synced;
}

}  // namespace cake
