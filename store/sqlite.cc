#include "store/sqlite.h"

#include <sqlite3.h>

#include <utility>

#include "store/base/file.h"
#include "store/base/log.h"

namespace cake {

namespace {

constexpr int kBusyTimeoutMs = 20'000;

// Why these values: store/README.md, "SQLite".
constexpr const char* kSettings =
    "PRAGMA synchronous = NORMAL;"
    "PRAGMA cache_size = -8192;"
    "PRAGMA mmap_size = 0;"
    "PRAGMA temp_store = MEMORY;"
    "PRAGMA wal_autocheckpoint = 2000;"
    "PRAGMA journal_size_limit = 67108864;"
    "PRAGMA trusted_schema = OFF;";

Errc errc_of(int code) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Errc::no_space;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Errc::corrupt;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return Errc::denied;
    default:
      return Errc::io;
  }
}

}  // namespace

// --- Statement ---

Statement::Statement(Statement&& other) noexcept
    : connection_(other.connection_),
      statement_(std::exchange(other.statement_, nullptr)),
      error_(std::move(other.error_)) {}

Statement::~Statement() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  // Or the cached statement would keep pointers to what the caller bound.
  sqlite3_clear_bindings(statement_);
}

void Statement::note(int code) {
  if (code != SQLITE_OK && !error_) error_ = connection_->error(code);
}

void Statement::reset() {
  // Repeats the error of the last step, which step() has returned already.
  if (statement_ != nullptr) sqlite3_reset(statement_);
}

void Statement::bind_integer(int parameter, int64_t value) {
  if (statement_ != nullptr) note(sqlite3_bind_int64(statement_, parameter, value));
}

void Statement::bind_text(int parameter, std::string_view value) {
  // A null pointer would bind NULL.
  const char* data = value.data() == nullptr ? "" : value.data();
  if (statement_ != nullptr)
    note(
        sqlite3_bind_text64(statement_, parameter, data, value.size(), SQLITE_STATIC, SQLITE_UTF8));
}

void Statement::bind_blob(int parameter, ByteSpan value) {
  if (statement_ == nullptr) return;
  if (value.empty())
    note(sqlite3_bind_zeroblob(statement_, parameter, 0));
  else
    note(sqlite3_bind_blob64(statement_, parameter, value.data(), value.size(), SQLITE_STATIC));
}

Result<bool> Statement::step() {
  if (!error_) {
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    note(code);
  }
  return *error_;
}

Status Statement::run() {
  // Such a write would fail whenever another process has written since the reading began
  // (SQLITE_BUSY_SNAPSHOT): now and then.  It fails always, so that a test sees it.
  if (statement_ != nullptr && connection_->is_reading_without_transaction() &&
      sqlite3_stmt_readonly(statement_) == 0)
    return Error{Errc::io,
                 cat("index: written while a statement reads: ", sqlite3_sql(statement_))};
  while (CAKE_TRY(step())) {
  }
  return {};
}

int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string Statement::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (data == nullptr) return {};
  return {data, static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

ByteSpan Statement::blob(int column) const {
  const auto* data = static_cast<const std::byte*>(sqlite3_column_blob(statement_, column));
  if (data == nullptr) return {};
  return {data, static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

// --- Connection ---

Error Connection::error(int code) const {
  const int system_error = sqlite3_system_errno(handle_);
  const std::string what =
      cat("index ", path_, ": ", sqlite3_errmsg(handle_), " (SQLite code ", code, ")");
  const int primary = code & 0xff;
  // What the kernel said is more exact: a full disk, a forbidden directory.
  if ((primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN) && system_error != 0)
    return errno_error(system_error, what);
  return Error{errc_of(code), what};
}

Result<std::unique_ptr<Connection>> Connection::open(const std::string& path, Mode mode) {
  sqlite3* handle = nullptr;
  // Without SQLite's own mutex: the owner of the connection has one.
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  flags |=
      mode == Mode::read_write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  if (handle == nullptr) return Error{Errc::io, cat("index ", path, ": out of memory")};
  std::unique_ptr<Connection> connection(new Connection(handle, path));
  if (code != SQLITE_OK) return connection->error(code);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  // Stays with the file, so only its maker changes anything here.
  if (mode == Mode::read_write) CAKE_TRY(connection->execute("PRAGMA journal_mode = WAL;"));
  CAKE_TRY(connection->execute(kSettings));
  return connection;
}

Connection::~Connection() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  if (sqlite3_close(handle_) != SQLITE_OK)
    log_error(cat("index ", path_, ": closed with statements in use"));
}

Statement Connection::prepare(std::string_view sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    sqlite3_stmt* statement = nullptr;
    const int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) return Statement(*this, nullptr, error(code));
    found = statements_.emplace(std::string(sql), statement).first;
  }
  CAKE_CHECK(sqlite3_stmt_busy(found->second) == 0);
  return Statement(*this, found->second, std::nullopt);
}

Status Connection::execute(const std::string& script) {
  const int code = sqlite3_exec(handle_, script.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return error(code);
  return {};
}

bool Connection::is_reading_without_transaction() const {
  if (sqlite3_get_autocommit(handle_) == 0) return false;
  for (const auto& [sql, statement] : statements_)
    if (sqlite3_stmt_busy(statement) != 0) return true;
  return false;
}

int64_t Connection::last_insert_id() const {
  return sqlite3_last_insert_rowid(handle_);
}

int64_t Connection::changes() const {
  return sqlite3_changes64(handle_);
}

// --- Transaction ---

Result<Transaction> Transaction::begin(Connection& connection, Kind kind) {
  Statement statement = connection.prepare(kind == Kind::write ? "BEGIN IMMEDIATE" : "BEGIN");
  CAKE_TRY(statement.run());
  return Transaction(connection);
}

Transaction::Transaction(Transaction&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)) {}

Transaction::~Transaction() {
  if (connection_ == nullptr) return;
  // A failed statement may have rolled back already; then this says so and nothing is open.
  (void)connection_->prepare("ROLLBACK").run();
}

Status Transaction::commit() {
  CAKE_TRY(connection_->prepare("COMMIT").run());
  connection_ = nullptr;
  return {};
}

}  // namespace cake
