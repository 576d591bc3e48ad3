#include "store/sqlite.h"

#include <gtest/gtest.h>

#include "store/base/file.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

std::unique_ptr<Connection> open_table(const std::string& path) {
  auto db = must(Connection::open(path, Connection::Mode::read_write));
  must(db->execute("CREATE TABLE IF NOT EXISTS t (a INTEGER, b BLOB)"));
  return db;
}

int64_t count_rows(Connection& db) {
  Statement row = db.prepare("SELECT count(*) FROM t");
  EXPECT_TRUE(must(row.bind().step()));
  return row.integer(0);
}

TEST(Sqlite, BindsWhatItReadsBack) {
  TempDir dir;
  auto db = open_table(dir / "db");
  const Buffer blob = random_bytes(1, 100);
  must(db->prepare("INSERT INTO t VALUES (?1, ?2)").bind(UINT64_MAX, ByteSpan(blob)).run());
  must(db->prepare("INSERT INTO t VALUES (?1, ?2)").bind(0, ByteSpan()).run());
  Statement rows = db->prepare("SELECT a, b FROM t ORDER BY rowid");
  ASSERT_TRUE(must(rows.bind().step()));
  EXPECT_EQ(rows.number(0), UINT64_MAX);
  EXPECT_EQ(to_buffer(rows.blob(1)), blob);
  ASSERT_TRUE(must(rows.step()));
  EXPECT_FALSE(rows.is_null(1));
  EXPECT_TRUE(rows.blob(1).empty());
  EXPECT_FALSE(must(rows.step()));
}

TEST(Sqlite, RollsBackTransactionThatIsNotCommitted) {
  TempDir dir;
  auto db = open_table(dir / "db");
  {
    Transaction transaction = must(Transaction::begin(*db, Transaction::Kind::write));
    must(db->prepare("INSERT INTO t VALUES (1, x'00')").run());
  }
  EXPECT_EQ(count_rows(*db), 0);
  Transaction transaction = must(Transaction::begin(*db, Transaction::Kind::write));
  must(db->prepare("INSERT INTO t VALUES (1, x'00')").run());
  must(transaction.commit());
  EXPECT_EQ(count_rows(*db), 1);
}

TEST(Sqlite, ReaderDoesNotWaitForOpenTransaction) {
  TempDir dir;
  auto writer = open_table(dir / "db");
  auto reader = must(Connection::open(dir / "db", Connection::Mode::read_only));
  Transaction transaction = must(Transaction::begin(*writer, Transaction::Kind::write));
  must(writer->prepare("INSERT INTO t VALUES (1, x'00')").run());
  EXPECT_EQ(count_rows(*reader), 0);
  must(transaction.commit());
  EXPECT_EQ(count_rows(*reader), 1);
}

TEST(Sqlite, RefusesToWriteBesideAReadingStatement) {
  TempDir dir;
  auto db = open_table(dir / "db");
  must(db->prepare("INSERT INTO t VALUES (1, x'00')").run());
  {
    Statement row = db->prepare("SELECT a FROM t");
    ASSERT_TRUE(must(row.bind().step()));
    EXPECT_FALSE(db->prepare("DELETE FROM t").run());
    EXPECT_FALSE(Transaction::begin(*db, Transaction::Kind::write));
  }
  must(db->prepare("DELETE FROM t").run());
  EXPECT_EQ(count_rows(*db), 0);
}

TEST(Sqlite, SaysThatDamagedFileIsCorrupt) {
  TempDir dir;
  must(write_file_atomically(dir / "db", random_bytes(1, 8192)));
  const auto db = Connection::open(dir / "db", Connection::Mode::read_write);
  ASSERT_FALSE(db);
  EXPECT_EQ(db.error().code, Errc::corrupt);
}

TEST(Sqlite, ReportsBadStatementWhenStepped) {
  TempDir dir;
  auto db = open_table(dir / "db");
  Statement statement = db->prepare("SELECT a FROM nowhere");
  const auto stepped = statement.bind(1).step();
  ASSERT_FALSE(stepped);
  EXPECT_NE(stepped.error().message.find("nowhere"), std::string::npos) << stepped.error().message;
}

TEST(Sqlite, SaysThatFullDatabaseHasNoSpace) {
  TempDir dir;
  auto db = open_table(dir / "db");
  must(db->execute("PRAGMA max_page_count = 4"));
  const Buffer blob = random_bytes(1, 64 * kKiB);
  const auto inserted = db->prepare("INSERT INTO t VALUES (1, ?1)").bind(ByteSpan(blob)).run();
  ASSERT_FALSE(inserted);
  EXPECT_EQ(inserted.error().code, Errc::no_space);
}

}  // namespace
}  // namespace cake
