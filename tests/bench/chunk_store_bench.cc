// Throughput of the chunk store with 1 MiB chunks: putting (until durable and published) and
// reading from the page cache.  Arguments: CODEC (raw or zstd), MIB, DIRECTORY, THREADS.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "store/base/clock.h"
#include "store/store.h"
#include "tests/support/store_fixture.h"

namespace {

using namespace cake;

// random: nothing to gain.  bf16: what trained weights look like, a narrow range of exponents.
ChunkPtr make_chunk(BufferPool& buffers, std::mt19937_64& random, bool bf16) {
  auto chunk = buffers.allocate(kMiB);
  const MutableByteSpan bytes = chunk->bytes();
  for (size_t i = 0; i < kMiB; i += 8) store_le<uint64_t>(&bytes[i], random());
  if (bf16)
    for (size_t i = 1; i < kMiB; i += 2)
      bytes[i] = static_cast<std::byte>(0x3b + (static_cast<unsigned>(bytes[i]) & 0x83));
  return chunk;
}

double seconds_since(SteadyTime start) {
  return std::chrono::duration<double>(steady_now() - start).count();
}

void bench(const std::string& codec, uint64_t chunks, const std::string& directory,
           unsigned threads) {
  Metrics metrics;
  StoreOptions options;
  options.directory = directory;
  options.codec = codec == "raw" ? CodecChoice::raw : CodecChoice::zstd;
  options.threads = threads;
  auto store = must(Store::open(options, metrics));
  std::mt19937_64 random(std::random_device{}());
  std::vector<ChunkPtr> plain;
  for (uint64_t i = 0; i < chunks; i++)
    plain.push_back(make_chunk(store->buffers(), random, codec != "raw"));

  const SteadyTime put_start = steady_now();
  std::vector<Location> locations(chunks);
  for (uint64_t i = 0; i < chunks; i++) {
    PutRequest request;
    request.ordinal = i;
    request.content = 1;
    request.dtype = codec == "raw" ? Dtype::bytes : Dtype::bf16;
    request.plain = std::move(plain[i]);
    request.done = [&locations, i](const Digest&, Result<Location> at) {
      locations[i] = must(std::move(at));
    };
    store->chunks().put(std::move(request));
  }
  must(store->chunks().flush());
  const double put_seconds = seconds_since(put_start);

  const SteadyTime read_start = steady_now();
  for (const Location& location : locations) must(store->chunks().read(location));
  const double read_seconds = seconds_since(read_start);
  const double mb = static_cast<double>(chunks * kMiB) / 1e6;
  const auto encoded = metrics.counter("store.bytes_written").value();
  std::printf("%s: put %.0f MB/s (durable), read %.0f MB/s (one thread), encoded to %.3f\n",
              codec.c_str(), mb / put_seconds, mb / read_seconds,
              static_cast<double>(encoded) / static_cast<double>(chunks * kMiB));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: %s raw|zstd MIB DIRECTORY THREADS\n", argv[0]);
    return 2;
  }
  bench(argv[1], std::strtoull(argv[2], nullptr, 10), argv[3],
        static_cast<unsigned>(std::strtoul(argv[4], nullptr, 10)));
  return 0;
}
