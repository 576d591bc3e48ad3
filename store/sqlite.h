// SQLite, as little of it as the index needs: connections, prepared statements, transactions.
//
// Failures of SQLite become Errors: no_space (SQLITE_FULL), corrupt (SQLITE_CORRUPT, NOTADB),
// denied (read-only or forbidden file), io (the rest, a lock held beyond the busy timeout too).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "store/base/bytes.h"
#include "store/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace cake {

class Connection;

// A prepared statement, borrowed from its connection's cache and reset when it goes.  The first
// failure (of preparing, binding or stepping) sticks and is what step() returns.  Confined to who
// holds the connection's lock.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Values of ?1, ?2, ... in order, for a fresh run.  Texts and blobs are not copied: they must
  // live until the last step().
  template <typename... Values>
  Statement& bind(const Values&... values) {
    reset();
    int parameter = 0;
    (bind_at(++parameter, values), ...);
    return *this;
  }
  // True when there is a row to read.
  Result<bool> step();
  // Steps to the end.
  Status run();

  // Columns of the current row, from 0.  Spans live until the next step.
  int64_t integer(int column) const;
  uint64_t number(int column) const { return static_cast<uint64_t>(integer(column)); }
  std::string text(int column) const;
  ByteSpan blob(int column) const;
  bool is_null(int column) const;

 private:
  friend class Connection;
  Statement(Connection& connection, sqlite3_stmt* statement, std::optional<Error> error)
      : connection_(&connection), statement_(statement), error_(std::move(error)) {}
  void reset();
  template <typename Value>
  void bind_at(int parameter, const Value& value) {
    if constexpr (std::is_enum_v<Value> || std::is_integral_v<Value>)
      bind_integer(parameter, static_cast<int64_t>(value));
    else if constexpr (std::is_convertible_v<const Value&, std::string_view>)
      bind_text(parameter, value);
    else
      bind_blob(parameter, value);
  }
  void bind_integer(int parameter, int64_t value);
  void bind_text(int parameter, std::string_view value);
  void bind_blob(int parameter, ByteSpan value);
  void note(int code);

  Connection* connection_;
  sqlite3_stmt* statement_;
  std::optional<Error> error_;
};

// One database handle and its prepared statements.  Not thread-safe: its owner guards it.
class Connection {
 public:
  enum class Mode { read_write, read_only };
  // Opens or makes the file, in WAL mode with the settings that store/README.md explains.
  static Result<std::unique_ptr<Connection>> open(const std::string& path, Mode mode);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Prepared once per text.  A statement in use is not given out again (a bug).
  Statement prepare(std::string_view sql);
  // A script without results.
  Status execute(const std::string& script);

  // A statement has been stepped and is neither done nor reset, and nothing was begun.
  bool is_reading_without_transaction() const;
  int64_t last_insert_id() const;
  // Rows that the last statement changed.
  int64_t changes() const;

 private:
  friend class Statement;
  Connection(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  Error error(int code) const;

  sqlite3* const handle_;
  const std::string path_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

// Rolls back when it goes without commit().
class Transaction {
 public:
  // write: BEGIN IMMEDIATE, so that what it reads cannot be changed by another process before it
  // writes.  read: one consistent view for several statements.
  enum class Kind { read, write };
  static Result<Transaction> begin(Connection& connection, Kind kind);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status commit();

 private:
  explicit Transaction(Connection& connection) : connection_(&connection) {}
  Connection* connection_;  // null when ended
};

}  // namespace cake
