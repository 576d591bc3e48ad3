#include "store/store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "store/base/file.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

TEST(Store, MakesItsDirectory) {
  TempDir dir;
  const std::string path = dir / "a/b/store";
  StoreFixture fixture(path);
  struct stat facts {};
  ASSERT_EQ(::stat(path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700u);
  EXPECT_TRUE(must(read_text_file(path + "/CACHEDIR.TAG", 1000))
                  .starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
  EXPECT_EQ(fixture.store().directory(), path);
}

TEST(Store, CountsItsBlocks) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const uint64_t before = must(fixture.store().disk_bytes());
  fixture.put(0, 0, random_bytes(1, kMiB));
  must(fixture.chunks().flush());
  EXPECT_GE(must(fixture.store().disk_bytes()), before + kMiB);
}

TEST(Store, SaysWhoseItIsAndWhatToDo) {
  if (::geteuid() != 0) GTEST_SKIP() << "giving a file away needs root";
  TempDir dir;
  StoreFixture(dir.path());
  ASSERT_EQ(::chown((dir / "index.db").c_str(), 12345, 12345), 0);
  Metrics metrics;
  const auto opened = Store::open({dir.path()}, metrics);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::denied);
  EXPECT_NE(opened.error().message.find(dir.path()), std::string::npos);
  EXPECT_NE(opened.error().message.find("--store"), std::string::npos);
}

TEST(Store, NamesDirectoryThatCannotBeMade) {
  Metrics metrics;
  const auto opened = Store::open({"/proc/cakefs-store"}, metrics);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("/proc/cakefs-store"), std::string::npos);
}

TEST(Store, TellsHowToReplaceDamagedIndex) {
  TempDir dir;
  must(write_file_atomically(dir / "index.db", random_bytes(1, 10'000)));
  Metrics metrics;
  const auto opened = Store::open({dir.path()}, metrics);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::corrupt);
  EXPECT_NE(opened.error().message.find("remove"), std::string::npos);
}

// Claims the byte that the parent holds, and one that it does not.
TEST(StoreChild, DISABLED_Claims) {
  const Claims claims = must(Claims::open(std::getenv("CAKE_TEST_CLAIMS")));
  EXPECT_FALSE(must(claims.try_claim(7, 3)));
  EXPECT_TRUE(must(claims.try_claim(7, 4)));
  EXPECT_TRUE(must(claims.try_claim(8, 3)));
}

TEST(Claims, ExcludeOtherProcessesOnly) {
  TempDir dir;
  const Claims claims = must(Claims::open(dir / "claims"));
  EXPECT_TRUE(must(claims.try_claim(7, 3)));
  EXPECT_TRUE(must(claims.try_claim(7, 3)));
  const int status = run_self("StoreChild.DISABLED_Claims", {{"CAKE_TEST_CLAIMS", dir / "claims"}});
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  // Ended with its process.
  EXPECT_TRUE(must(claims.try_claim(7, 4)));
  const Claims other = must(Claims::open(dir / "claims"));
  EXPECT_FALSE(must(other.try_claim(7, 3)));
  must(claims.release(7, 3));
  EXPECT_TRUE(must(other.try_claim(7, 3)));
  EXPECT_EQ(claims.try_claim(1, uint64_t{1} << 24).error().code, Errc::invalid);
  EXPECT_EQ(claims.try_claim(UINT64_MAX, 0).error().code, Errc::invalid);
}

TEST(Lease, ListsOpenContentsOfLivingProcesses) {
  TempDir dir;
  auto one = must(Lease::open(dir.path()));
  auto two = must(Lease::open(dir.path()));
  must(one->add(5));
  must(one->add(5));
  must(one->add(6));
  must(two->add(7));
  EXPECT_EQ(must(Lease::all(dir.path())), (std::vector<RowId>{5, 6, 7}));
  must(one->remove(5));
  EXPECT_EQ(must(Lease::all(dir.path())), (std::vector<RowId>{5, 6, 7}));
  must(one->remove(5));
  EXPECT_EQ(must(Lease::all(dir.path())), (std::vector<RowId>{6, 7}));
  EXPECT_EQ(one->remove(5).error().code, Errc::invalid);
  two.reset();
  EXPECT_EQ(must(Lease::all(dir.path())), std::vector<RowId>{6});
  for (RowId content = 100; content < 2000; content++) must(one->add(content));
  EXPECT_EQ(must(Lease::all(dir.path())).size(), 1901u);
}

// Somebody who looks which leases are live has each locked for a moment.
TEST(Lease, CanBeHadWhileOthersLook) {
  TempDir dir;
  must(make_directories(dir / "leases"));
  std::atomic<bool> stops{false};
  std::thread looker([&] {
    while (!stops) (void)Lease::all(dir.path());
  });
  unsigned failed = 0;
  for (int i = 0; i < 5000; i++) failed += !Lease::open(dir.path());
  stops = true;
  looker.join();
  EXPECT_EQ(failed, 0u);
}

TEST(StoreChild, DISABLED_LeavesLease) {
  auto lease = must(Lease::open(std::getenv("CAKE_TEST_DIR")));
  must(lease->add(9));
  ::raise(SIGKILL);
}

TEST(Lease, OfDeadProcessDoesNotCountAndIsRemoved) {
  TempDir dir;
  run_self("StoreChild.DISABLED_LeavesLease", {{"CAKE_TEST_DIR", dir.path()}});
  EXPECT_EQ(must(list_directory(dir / "leases")).size(), 2u);
  EXPECT_TRUE(must(Lease::all(dir.path())).empty());
  auto lease = must(Lease::open(dir.path()));
  EXPECT_EQ(must(list_directory(dir / "leases")).size(), 2u);  // the lock and the new one
}

}  // namespace
}  // namespace cake
