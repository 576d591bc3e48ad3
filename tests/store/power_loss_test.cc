// Power is lost at any moment: what was reported as stored is there, what is there is right, and
// the harness that says so finds bugs of the kinds that break it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>

#include "store/check.h"
#include "store/evict.h"
#include "store/index_upkeep.h"
#include "store/remove.h"
#include "tests/store/write_log.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

struct History {
  std::vector<WriteOp> ops;
  // From `first` operations on the chunk is promised, until it may be gone.
  struct Promise {
    Buffer bytes;
    size_t from = 0;
    size_t until = SIZE_MAX;
  };
  std::map<Digest, Promise> promises;
};

// Pulls, evictions, a pin and a removal, all recorded.
class Recorder {
 public:
  Recorder(const std::string& directory, uint64_t seed, bool recodes)
      : random_(seed), directory_(directory), recodes_(recodes) {
    WriteLog::start(directory);
    store_ = must(Store::open(small_store_options(directory), metrics_));
  }

  History run(int steps) {
    contents_ = {add_content("a"), add_content("b"), add_content("c")};
    for (int i = 0; i < steps; i++) {
      put_some();
      if (random_() % 4 == 0) evict_some();
      if (recodes_ && i % 5 == 3) recode_some();
      if (i == steps / 2) pin("a");
      if (i == steps * 2 / 3) remove("c");
    }
    store_.reset();
    history_.ops = WriteLog::stop();
    return std::move(history_);
  }

 private:
  static std::string commit_of(const std::string& path) {
    return blake3(as_bytes("commit" + path)).hex().substr(0, 40);
  }

  RowId add_content(const std::string& path) {
    const RowId repo = must(store_->index().get_repo(kSource, kRepo));
    TreeEntry entry{path, kGiB, {}};
    entry.ids.sha256 = blake3(as_bytes(path)).hex();
    const auto snapshot =
        must(store_->index().put_snapshot(repo, commit_of(path), 1'700'000'000, {entry}));
    must(store_->chunks().record_snapshot(kSource, *snapshot));
    return snapshot->content_id(0);
  }

  void put_some() {
    std::vector<std::pair<Digest, Buffer>> put;
    for (uint64_t i = 0; i < 1 + random_() % 4; i++) {
      Buffer bytes = random_bytes(random_(), 200 + random_() % 90'000);
      // Half of them are worth encoding.
      if (recodes_ && i % 2 == 0)
        for (std::byte& byte : bytes) byte &= std::byte{7};
      const RowId content = contents_[random_() % contents_.size()];
      const auto row = must(store_->index().find_content(content));
      PutRequest request;
      request.content = content;
      request.content_name = content_pack_name(row->source, row->key);
      request.ordinal = next_++;
      auto plain = store_->buffers().allocate(bytes.size());
      std::memcpy(plain->bytes().data(), bytes.data(), bytes.size());
      request.plain = plain;
      store_->chunks().put(std::move(request));
      put.emplace_back(blake3(bytes), std::move(bytes));
    }
    must(store_->chunks().flush());
    const size_t now = WriteLog::size();
    for (auto& [digest, bytes] : put) history_.promises[digest] = {std::move(bytes), now};
  }

  // Promises end when the removal begins: from then on the chunk may be gone.
  void end_promises(size_t began) {
    std::set<Digest> there;
    must(store_->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
      there.insert(row.digest);
      return {};
    }));
    for (auto& [digest, promise] : history_.promises)
      if (!there.contains(digest)) promise.until = std::min(promise.until, began);
  }

  void evict_some() {
    const size_t began = WriteLog::size();
    must(store_->evictor().evict(60'000 + random_() % 100'000));
    end_promises(began);
  }

  // As after the codec was changed: encoded what was raw, and then the other way.
  void recode_some() {
    store_.reset();
    StoreOptions options = small_store_options(directory_);
    options.codec = codec_ = codec_ == CodecChoice::raw ? CodecChoice::zstd : CodecChoice::raw;
    store_ = must(Store::open(std::move(options), metrics_));
    std::vector<ChunkRow> rows;
    must(store_->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
      if (random_() % 2 == 0) rows.push_back(row);
      return {};
    }));
    const std::string name = content_pack_name(kSource, {ContentKind::sha256, "ab"});
    for (const ChunkRow& row : rows)
      must(store_->chunks().recode({row.digest, row.location, Dtype::bytes, name, 0}));
    must(store_->chunks().flush());
  }

  void pin(const std::string& path) {
    const RowId repo = must(store_->index().get_repo(kSource, kRepo));
    must(store_->index().put_pin(repo, commit_of(path), unix_now()));
    must(store_->chunks().record_pin(kSource, kRepo, commit_of(path), true));
    must(store_->chunks().flush());
  }

  void remove(const std::string& path) {
    const size_t began = WriteLog::size();
    const auto repo = must(store_->index().find_repo(kSource, kRepo));
    const RemovalTarget target{kSource, *repo, commit_of(path)};
    must(remove_targets(*store_, std::span(&target, 1)));
    std::erase(contents_, contents_.back());
    end_promises(began);
  }

  std::mt19937_64 random_;
  const std::string directory_;
  const bool recodes_;
  CodecChoice codec_ = CodecChoice::raw;
  Metrics metrics_;
  std::unique_ptr<Store> store_;
  std::vector<RowId> contents_;
  uint64_t next_ = 0;
  History history_;
};

struct Verdict {
  uint64_t states = 0, damaged = 0, lost = 0, wrong = 0;
  std::string first;  // what was found first
  bool is_clean() const { return damaged == 0 && lost == 0 && wrong == 0; }
};

void judge(Store& store, const History& history, size_t count, Verdict& verdict) {
  const auto note = [&](uint64_t& counter, const std::string& what) {
    if (verdict.is_clean()) verdict.first = cat("after ", count, " operations: ", what);
    counter++;
  };
  const CheckReport report = must(check_store(store, {}));
  if (!report.is_clean()) note(verdict.damaged, report.problems.front().what);
  for (const auto& [digest, promise] : history.promises) {
    const auto at = must(store.index().find_chunks(std::span(&digest, 1)))[0];
    if (!at) {
      if (promise.from <= count && count < promise.until) note(verdict.lost, digest.hex());
      continue;
    }
    const auto plain = store.chunks().read(*at);
    if (plain && to_buffer((*plain)->bytes()) != promise.bytes) note(verdict.wrong, digest.hex());
  }
}

// Power losses at random moments of the history.  `spoil` changes the disk before it is opened.
Verdict lose_power(const History& history, uint64_t states, uint64_t seed,
                   const std::function<void(const std::string&)>& spoil = {}) {
  Verdict verdict;
  std::mt19937_64 random(seed);
  for (; verdict.states < states; verdict.states++) {
    const size_t count = 1 + random() % history.ops.size();
    TempDir dir;
    write_disk(disk_after_power_loss(history.ops, count, random), dir.path());
    if (spoil) spoil(dir.path());
    Metrics metrics;
    const auto store = Store::open(small_store_options(dir.path()), metrics);
    if (!store) {
      verdict.damaged++;
      if (verdict.first.empty()) verdict.first = store.error().message;
      continue;
    }
    judge(**store, history, count, verdict);
  }
  return verdict;
}

class PowerLoss : public testing::Test {
 protected:
  static History record(uint64_t seed, bool recodes = false) {
    TempDir dir;
    return Recorder(dir.path(), seed, recodes).run(is_long() ? 40 : 14);
  }
};

TEST_F(PowerLoss, LosesNothingThatWasPromised) {
  for (uint64_t seed = 1; seed <= (is_long() ? 10 : 2); seed++) {
    const History history = record(seed, true);
    const Verdict verdict = lose_power(history, is_long() ? 100 : 25, seed);
    EXPECT_EQ(verdict.damaged, 0u) << verdict.first;
    EXPECT_EQ(verdict.lost, 0u) << verdict.first;
    EXPECT_EQ(verdict.wrong, 0u) << verdict.first;
  }
}

// --- Planted bugs: the history of a program that has them ---

TEST_F(PowerLoss, FindsSkippedSync) {
  History history = record(3);
  std::erase_if(history.ops, [](const WriteOp& op) {
    return op.kind == WriteOp::Kind::sync && op.path.ends_with(".pack");
  });
  for (auto& [digest, promise] : history.promises) promise.from = 0, promise.until = 0;
  EXPECT_GT(lose_power(history, 40, 3).damaged, 0u);
}

TEST_F(PowerLoss, FindsRowBeforeBytes) {
  History history = record(4);
  // Each write to a pack comes after the writes to the index that follow it.
  std::vector<WriteOp> ops, late;
  for (WriteOp& op : history.ops) {
    const bool is_pack = op.path.ends_with(".pack");
    if (is_pack && op.kind == WriteOp::Kind::write && op.offset > 0) {
      late.push_back(std::move(op));
      continue;
    }
    const bool is_index_sync = op.kind == WriteOp::Kind::sync && op.path.starts_with("index.db");
    ops.push_back(std::move(op));
    if (is_index_sync || late.size() > 6) {
      std::move(late.begin(), late.end(), std::back_inserter(ops));
      late.clear();
    }
  }
  history.ops = std::move(ops);
  for (auto& [digest, promise] : history.promises) promise.until = 0;
  EXPECT_GT(lose_power(history, 60, 4).damaged, 0u);
}

TEST_F(PowerLoss, FindsPunchBeforeRow) {
  History history = record(5);
  // Each punch comes before the deletions in the index that led to it.
  for (size_t i = 0; i < history.ops.size(); i++) {
    if (history.ops[i].kind != WriteOp::Kind::punch) continue;
    size_t to = i;
    while (to > 0 && history.ops[to - 1].path.starts_with("index.db")) to--;
    std::rotate(history.ops.begin() + static_cast<ptrdiff_t>(to),
                history.ops.begin() + static_cast<ptrdiff_t>(i),
                history.ops.begin() + static_cast<ptrdiff_t>(i) + 1);
  }
  for (auto& [digest, promise] : history.promises) promise.until = 0;
  EXPECT_GT(lose_power(history, 60, 5).damaged, 0u);
}

TEST_F(PowerLoss, FindsTailThatIsNotSalvaged) {
  const History history = record(6);
  // As if whoever opens cut off what has no row.
  const auto cut_tails = [](const std::string& directory) {
    auto index = Index::open(directory + "/index.db");
    if (!index) return;
    for (const Index::PackRow& row : must((*index)->list_packs())) {
      const std::string path = directory + "/packs/" + row.name;
      if (!path_exists(path)) continue;
      const File file = must(File::open(path, File::Mode::read_write));
      if (must(file.size()) > row.committed_bytes) must(file.truncate(row.committed_bytes));
    }
  };
  EXPECT_GT(lose_power(history, 60, 6, cut_tails).lost, 0u);
}

TEST_F(PowerLoss, FindsLeaseThatIsIgnored) {
  TempDir dir;
  Metrics metrics;
  auto store = must(Store::open(small_store_options(dir.path()), metrics));
  StoreFixture fixture(dir.path());
  const RowId open_file = fixture.content("open", kMiB);
  fixture.put(open_file, 0, random_bytes(1, 100'000));
  must(fixture.chunks().flush());
  const LeaseHold lease(fixture.store().lease(), open_file);
  std::vector<ChunkRow> rows;
  must(store->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    rows.push_back(row);
    return {};
  }));
  // The right way leaves it; a plan that takes leases for read already does not.
  EXPECT_EQ(must(store->evictor().evict(kGiB)).chunks, 0u);
  EXPECT_TRUE(must(store->index().find_chunks(std::span(&rows[0].digest, 1)))[0].has_value());
  const Reclaimer::Kept blind = must(store->evictor().reclaimer().kept());
  must(store->evictor().reclaimer().remove(rows, blind, true));
  EXPECT_FALSE(must(store->index().find_chunks(std::span(&rows[0].digest, 1)))[0].has_value());
}

}  // namespace
}  // namespace cake
