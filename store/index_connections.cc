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

}  // namespace cake
