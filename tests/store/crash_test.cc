// A process is killed at each point between two durable steps, in the middle of pulls, evictions, a
// removal and pins.  Whoever opens the store next finds what was promised, nothing wrong, and a
// store whose size is what the disk says.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "store/check.h"
#include "store/evict.h"
#include "store/index_upkeep.h"
#include "store/remove.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

std::string commit_of(const std::string& path) {
  return blake3(as_bytes("commit" + path)).hex().substr(0, 40);
}

// Says what it was promised, one line each, in a file that outlives it.
class Teller {
 public:
  explicit Teller(const std::string& path) : out_(path, std::ios::app) {}
  void promise(const Digest& digest) { out_ << "+ " << digest.hex() << std::endl; }
  // What was promised so far may go from now on.
  void take_back() { out_ << "?" << std::endl; }
  static std::set<std::string> promises(const std::string& path) {
    std::set<std::string> promised;
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) {
      if (line == "?") promised.clear();
      if (line.starts_with("+ ")) promised.insert(line.substr(2));
    }
    return promised;
  }

 private:
  std::ofstream out_;
};

// A content's chunks are made of its seed, so that anyone can tell whether bytes are right.
Buffer chunk_bytes(uint64_t seed) {
  return random_bytes(seed, 300 + seed * 7919 % 90'000);
}

void put_some(Store& store, RowId content, uint64_t first, uint64_t count, Teller& teller) {
  const auto row = must(store.index().find_content(content));
  for (uint64_t i = first; i < first + count; i++) {
    const Buffer bytes = chunk_bytes(i);
    PutRequest request;
    request.content = content;
    request.content_name = content_pack_name(row->source, row->key);
    request.ordinal = i;
    auto plain = store.buffers().allocate(bytes.size());
    std::memcpy(plain->bytes().data(), bytes.data(), bytes.size());
    request.plain = plain;
    store.chunks().put(std::move(request));
  }
  must(store.chunks().flush());
  for (uint64_t i = first; i < first + count; i++) teller.promise(blake3(chunk_bytes(i)));
}

void promise_what_is_there(Store& store, Teller& teller) {
  must(store.upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    teller.promise(row.digest);
    return {};
  }));
}

// The history that is cut short: run by the parent as another process.
TEST(CrashChild, DISABLED_History) {
  const std::string directory = std::getenv("CAKE_TEST_STORE");
  const uint64_t start = std::strtoull(std::getenv("CAKE_TEST_SEED"), nullptr, 10) * 1000;
  Teller teller(directory + ".told");
  Metrics metrics;
  auto store = must(Store::open(small_store_options(directory), metrics));
  const RowId repo = must(store->index().get_repo(kSource, kRepo));
  std::vector<RowId> contents;
  for (const std::string path : {"a", "b", "c"}) {
    TreeEntry entry{path, kGiB, {}};
    entry.ids.sha256 = blake3(as_bytes(path)).hex();
    const auto snapshot =
        must(store->index().put_snapshot(repo, commit_of(path), 1'700'000'000, {entry}));
    must(store->chunks().record_snapshot(kSource, *snapshot));
    contents.push_back(snapshot->content_id(0));
  }
  for (uint64_t i = 0; i < 6; i++) {
    put_some(*store, contents[i % 3], start + i * 5, 5, teller);
    if (i == 2) {
      must(store->index().put_pin(repo, commit_of("a"), unix_now()));
      must(store->chunks().record_pin(kSource, kRepo, commit_of("a"), true));
    }
    if (i % 2 == 1) {
      teller.take_back();
      must(store->evictor().evict(100'000));
      promise_what_is_there(*store, teller);
    }
  }
  teller.take_back();
  const RemovalTarget target{kSource, *must(store->index().find_repo(kSource, kRepo)),
                             commit_of("c")};
  must(remove_targets(*store, std::span(&target, 1)));
  promise_what_is_there(*store, teller);
}

uint64_t blocks_below(const std::string& directory) {
  uint64_t sum = 0;  // as du, but for the directory itself
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    sum += must(path_disk_bytes(entry.path().string()));
  return sum;
}

void judge(const std::string& directory, const std::string& how) {
  SCOPED_TRACE(how);
  Metrics metrics;
  const auto store = must(Store::open(small_store_options(directory), metrics));
  const CheckReport report = must(check_store(*store, {}));
  EXPECT_TRUE(report.is_clean()) << report.problems.front().what;
  std::set<std::string> there;
  must(store->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    there.insert(row.digest.hex());
    return {};
  }));
  for (const std::string& digest : Teller::promises(directory + ".told"))
    EXPECT_TRUE(there.contains(digest)) << digest << " was promised";
  const uint64_t disk = blocks_below(directory), said = must(store->disk_bytes());
  EXPECT_LE(disk > said ? disk - said : said - disk, disk / 100);
}

class Crash : public testing::TestWithParam<const char*> {};

TEST_P(Crash, LeavesASoundStore) {
  for (int passage = 1; passage <= (is_long() ? 20 : 2); passage++) {
    TempDir dir;
    const std::string store = dir / "store";
    // Twice, so that the second meets what the first left.
    for (int round = 0; round < 2; round++) {
      const std::string fault = cat(GetParam(), ":", passage);
      const int status = run_self(
          "CrashChild.DISABLED_History",
          {{"CAKE_FAULT", fault}, {"CAKE_TEST_STORE", store}, {"CAKE_TEST_SEED", cat(round + 1)}});
      const bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
      EXPECT_TRUE(was_killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << status;
      judge(store, cat(fault, ", round ", round + 1));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AtEachPoint, Crash,
                         testing::Values("pack.created", "pack.added", "pack.appended",
                                         "pack.segments_appended", "pack.synced", "index.published",
                                         "salvage.synced", "salvage.published", "evict.dropped",
                                         "evict.punched", "remove.chunks_gone",
                                         "remove.names_gone"),
                         [](const auto& point) {
                           std::string name = point.param;
                           for (char& letter : name)
                             if (letter == '.') letter = '_';
                           return name;
                         });

// --- Surroundings that fail ---

class Trouble : public testing::Test {
 protected:
  void SetUp() override {
    store_ = must(Store::open(small_store_options(dir_ / "store"), metrics_));
    const RowId repo = must(store_->index().get_repo(kSource, kRepo));
    TreeEntry entry{"a", kGiB, {}};
    entry.ids.sha256 = blake3(as_bytes("a")).hex();
    content_ = must(store_->index().put_snapshot(repo, commit_of("a"), 1, {entry}))->content_id(0);
    Teller teller(dir_ / "told");
    put_some(*store_, content_, 0, 4, teller);
  }
  Location first() {
    const Digest digest = blake3(chunk_bytes(0));
    return *must(store_->index().find_chunks(std::span(&digest, 1)))[0];
  }
  void put_one() {
    PutRequest request;
    request.content = content_;
    const Buffer bytes = chunk_bytes(77);
    auto plain = store_->buffers().allocate(bytes.size());
    std::memcpy(plain->bytes().data(), bytes.data(), bytes.size());
    request.plain = plain;
    store_->chunks().put(std::move(request));
    (void)store_->chunks().flush();  // whether it is stored is not asked here
  }

  TempDir dir_;
  Metrics metrics_;
  std::unique_ptr<Store> store_;
  RowId content_ = 0;
};

TEST_F(Trouble, NoDescriptorLeftIsAnErrorForUpkeepAndNothingForReaders) {
  must(store_->chunks().read(first()));  // its pack is open
  rlimit before{}, none{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  none = {3, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto evicted = store_->evictor().evict(kGiB);
  const auto read = store_->chunks().read(first());
  put_one();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FALSE(evicted);
  EXPECT_TRUE(read);
  EXPECT_TRUE(must(check_store(*store_, {})).is_clean());
  EXPECT_GE(must(store_->evictor().evict(kGiB)).chunks, 4u);
}

TEST_F(Trouble, AStoreThatVanishesKeepsNobodyWaiting) {
  const Location place = first();
  must(store_->chunks().read(place));
  std::filesystem::remove_all(dir_ / "store/packs");
  put_one();
  (void)store_->evictor().evict(kGiB);  // there is nothing to give back any more
  // From a descriptor that was kept open, or not at all: then it is fetched.
  {
    const auto read = store_->chunks().read(place);
    if (!read) {
      EXPECT_EQ(read.error().code, Errc::not_found);
    }
  }
  store_.reset();  // ends, too
}

TEST_F(Trouble, AClockThatJumpsBackSparesNothingForEver) {
  const Digest digest = blake3(chunk_bytes(0));
  const int64_t later = unix_now() + 10'000'000;
  must(store_->upkeep().touch_chunks(std::span(&digest, 1), later));
  must(store_->upkeep().touch_chunks(std::span(&digest, 1), unix_now()));
  int64_t found = 0;
  must(store_->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    if (row.digest == digest) found = row.last_access;
    return {};
  }));
  EXPECT_LE(found, unix_now());
}

}  // namespace
}  // namespace cake
