// A store directory, opened: index, packs, claims and leases.  Several processes share one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/access_log.h"
#include "store/base/config.h"
#include "store/base/file.h"
#include "store/base/memory.h"
#include "store/base/metrics.h"
#include "store/base/thread_pool.h"
#include "store/chunk_store.h"
#include "store/index.h"

namespace cake {

class Evictor;
class IndexUpkeep;

struct StoreOptions {
  std::string directory;
  CodecChoice codec = CodecChoice::automatic;
  uint64_t mem_cache_bytes = 256 * kMiB;
  unsigned threads = 0;  // 0: as many as cores, at least 2
  // Shares are of the disk that the store is on.
  std::optional<PercentSize> cache_size, min_free;  // none: no limit
};

// One fetch a host: who holds the claim on 16 MiB of a content fetches it; others wait for its
// rows. A claim is an OFD lock on one byte of DIR/claims, so it ends with its process. Thread-safe.
class Claims {
 public:
  static constexpr uint64_t kRegionBytes = 16 * kMiB;
  static Result<Claims> open(const std::string& path);
  // False when another process holds it.  Within a process claims do not exclude each other: the
  // fetcher counts them.
  Result<bool> try_claim(RowId content, uint64_t region) const;
  Status release(RowId content, uint64_t region) const;

 private:
  explicit Claims(File file) : file_(std::move(file)) {}
  File file_;
};

// What this process has open, for those who evict: DIR/leases/NAME, locked while the process lives,
// holding the row ids of open contents in 8-byte slots.  Thread-safe.
class Lease {
 public:
  static Result<std::unique_ptr<Lease>> open(const std::string& directory);
  ~Lease();
  Status add(RowId content);
  Status remove(RowId content);
  // How many processes have the store open.
  static Result<size_t> live_processes(const std::string& directory);
  // Contents that any live process of the store has open.
  static Result<std::vector<RowId>> all(const std::string& directory);

 private:
  struct Impl;
  explicit Lease(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A lease for as long as it lives.  Thread-compatible.
class LeaseHold {
 public:
  // `lease` outlives this.  A lease that cannot be had is logged: what is read may then be evicted,
  // and is fetched again.
  LeaseHold(Lease& lease, RowId content);
  ~LeaseHold();
  LeaseHold(const LeaseHold&) = delete;
  LeaseHold& operator=(const LeaseHold&) = delete;

 private:
  Lease& lease_;
  const RowId content_;
  bool is_held_ = false;
};

// Owns the parts in the order they depend on each other.  Thread-safe through them.
class Store {
 public:
  // Makes the directory when absent (mode 0700), with its CACHEDIR.TAG.  Milliseconds whatever the
  // size.  unsupported: made by a newer program.  denied: not ours to write.
  static Result<std::unique_ptr<Store>> open(StoreOptions options, Metrics& metrics);
  ~Store();

  const std::string& directory() const { return options_.directory; }
  MemoryBudget& budget() { return budget_; }
  BufferPool& buffers() { return buffers_; }
  ThreadPool& pool() { return *pool_; }
  CodecChoice codec() const { return options_.codec; }
  Index& index() { return *index_; }
  ChunkStore& chunks() { return *chunks_; }
  Claims& claims() { return *claims_; }
  Lease& lease() { return *lease_; }
  AccessLog& accesses() { return accesses_; }
  IndexUpkeep& upkeep() { return *upkeep_; }
  Evictor& evictor() { return *evictor_; }
  // Bytes that the store occupies on disk: packs (allocated blocks), index, small files.
  Result<uint64_t> disk_bytes() const;

 private:
  explicit Store(StoreOptions options);

  const StoreOptions options_;
  MemoryBudget budget_;
  BufferPool buffers_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<Claims> claims_;
  std::unique_ptr<Lease> lease_;
  AccessLog accesses_;
  std::unique_ptr<IndexUpkeep> upkeep_;
  std::unique_ptr<Evictor> evictor_;
  std::unique_ptr<ChunkStore> chunks_;  // last: its threads use the others
};

}  // namespace cake
