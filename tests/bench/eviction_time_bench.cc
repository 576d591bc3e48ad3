// How long the eviction of a large store takes, and what readers notice of it: rows for GB of
// chunks in packs without blocks, and a reader of other chunks, alone (before and after, since the
// disks of shared machines change by the second) and during the eviction.
// Arguments: GB, DIRECTORY.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "store/base/clock.h"
#include "store/base/file.h"
#include "store/evict.h"
#include "store/index_upkeep.h"
#include "store/store.h"
#include "tests/support/store_fixture.h"

namespace {

using namespace cake;

constexpr uint64_t kReadChunks = 64;
constexpr uint64_t kBlockBytes = 4'096;
constexpr uint64_t kChunksAPack = 4'096;
constexpr uint64_t kPackBytes = kChunksAPack * (kMiB + kBlockBytes);
constexpr Millis kAlone{2'000};  // before, and after
constexpr uint64_t kRounds = 7;

RowId make_content(Store& store, const std::string& path, uint64_t bytes) {
  const RowId repo = must(store.index().get_repo("hf:bench", {RepoType::model, "org/bench"}));
  TreeEntry entry;
  entry.path = path;
  entry.bytes = bytes;
  entry.ids.sha256 = blake3(as_bytes(path)).hex();
  const std::string commit = blake3(as_bytes("commit" + path)).hex().substr(0, 40);
  return must(store.index().put_snapshot(repo, commit, 1'700'000'000, {entry}))->content_id(0);
}

// Rows as a writer would have published them; the pack is one hole.
void add_cold_pack(Store& store, uint64_t number, std::mt19937_64& random) {
  const std::string name = cat("cold-", number, ".pack");
  const uint32_t pack = must(store.index().add_pack(name));
  const File file =
      must(File::open(cat(store.directory(), "/packs/", name), File::Mode::create_new));
  must(file.truncate(kPackBytes));
  const RowId content = make_content(store, name, kChunksAPack * kMiB);
  std::vector<PublishedExtent> extents;
  for (uint64_t i = 0; i < kChunksAPack; i++) {
    PublishedExtent extent;
    extent.content = content;
    extent.ordinal = i;
    const uint64_t seed = random();
    extent.digest = blake3(std::as_bytes(std::span(&seed, 1)));
    Location location;
    location.pack = pack;
    location.offset = (i + 1) * kBlockBytes + i * kMiB;
    location.encoded_bytes = location.plain_bytes = kMiB;
    extent.location = location;
    extents.push_back(extent);
  }
  must(store.index().publish(extents, pack, kPackBytes));
  must(store.index().seal_pack(pack, kPackBytes));
}

RowId add_warm_chunks(Store& store, std::mt19937_64& random) {
  const RowId content = make_content(store, "warm", kReadChunks * kMiB);
  for (uint64_t i = 0; i < kReadChunks; i++) {
    PutRequest request;
    request.content = content;
    request.ordinal = i;
    auto chunk = store.buffers().allocate(kMiB);
    for (size_t at = 0; at < kMiB; at += 8) store_le<uint64_t>(&chunk->bytes()[at], random());
    request.plain = chunk;
    store.chunks().put(std::move(request));
  }
  must(store.chunks().flush());
  return content;
}

// Microseconds of each read until `ends`.
std::vector<double> read_on(Store& store, RowId content, const std::function<bool()>& ends) {
  std::mt19937_64 random(3);
  std::vector<double> times;
  while (!ends()) {
    const SteadyTime start = steady_now();
    const auto digests = must(store.index().find_digests(content, random() % kReadChunks, 1));
    const auto location = must(store.index().find_chunks(digests)).front();
    must(store.chunks().read(location.value()));
    times.push_back(std::chrono::duration<double, std::micro>(steady_now() - start).count());
  }
  return times;
}

double percentile(const std::vector<double>& sorted, double part) {
  return sorted[static_cast<size_t>(static_cast<double>(sorted.size() - 1) * part)];
}

void bench(uint64_t gigabytes, const std::string& directory) {
  Metrics metrics;
  StoreOptions options;
  options.directory = directory;
  options.codec = CodecChoice::raw;
  const auto store = must(Store::open(options, metrics));
  std::mt19937_64 random(7);
  const uint64_t packs = gigabytes * 1'000'000'000 / (kChunksAPack * kMiB) + 1;
  const RowId warm = add_warm_chunks(*store, random);
  const LeaseHold lease(store->lease(), warm);
  std::vector<double> ratios, all_alone, all_during;
  for (uint64_t round = 0; round < kRounds; round++) {
    for (uint64_t i = 0; i < packs; i++) add_cold_pack(*store, round * packs + i, random);
    const auto read_alone = [&] {
      const SteadyTime end = steady_now() + kAlone;
      return read_on(*store, warm, [&] { return steady_now() >= end; });
    };
    std::vector<double> alone = read_alone();
    std::atomic<bool> is_done{false};
    Reclaimer::Gone gone;
    double seconds = 0;
    std::thread evicting([&] {
      const SteadyTime start = steady_now();
      gone = must(store->evictor().evict(packs * kChunksAPack * kMiB));
      seconds = std::chrono::duration<double>(steady_now() - start).count();
      is_done = true;
    });
    std::vector<double> during = read_on(*store, warm, [&] { return is_done.load(); });
    evicting.join();
    const std::vector<double> after = read_alone();
    alone.insert(alone.end(), after.begin(), after.end());
    for (auto* times : {&alone, &during}) std::sort(times->begin(), times->end());
    all_alone.insert(all_alone.end(), alone.begin(), alone.end());
    all_during.insert(all_during.end(), during.begin(), during.end());
    ratios.push_back(percentile(during, 0.99) / percentile(alone, 0.99));
    std::printf(
        "%lu chunks evicted of %lu in %.1f s; a read of 1 MiB: alone p50 %.0f p99 %.0f us, during "
        "it p50 %.0f p99 %.0f us (%.2f)\n",
        static_cast<unsigned long>(gone.chunks), static_cast<unsigned long>(packs * kChunksAPack),
        seconds, percentile(alone, 0.5), percentile(alone, 0.99), percentile(during, 0.5),
        percentile(during, 0.99), ratios.back());
  }
  for (auto* values : {&ratios, &all_alone, &all_during}) std::sort(values->begin(), values->end());
  std::printf(
      "p99 during eviction to p99 alone: median of %lu %.2f; of all %zu and %zu reads %.2f (p50 "
      "%.2f)\n",
      static_cast<unsigned long>(kRounds), percentile(ratios, 0.5), all_during.size(),
      all_alone.size(), percentile(all_during, 0.99) / percentile(all_alone, 0.99),
      percentile(all_during, 0.5) / percentile(all_alone, 0.5));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s GB DIRECTORY\n", argv[0]);
    return 2;
  }
  bench(std::strtoull(argv[1], nullptr, 10), argv[2]);
  return 0;
}
