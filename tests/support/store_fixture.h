// A store in a TempDir, and the small things that tests of it do over and over.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "store/store.h"
#include "tests/support/pattern.h"
#include "tests/support/temp_dir.h"

namespace cake {

// The value, or a failed test that says why not.
template <typename T>
T must(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << errc_name(result.error().code) << ": " << result.error().message;
    std::abort();
  }
  return std::move(result).value();
}
inline void must(const Status& status) {
  ASSERT_TRUE(status.ok()) << errc_name(status.error().code) << ": " << status.error().message;
}

// Raw chunks, two threads, a limit of 1 GiB.
StoreOptions small_store_options(const std::string& directory);

// Whether tests that take samples are to take all (CAKE_LONG=1, `tests/run --long`).
bool is_long();

class StoreFixture {
 public:
  explicit StoreFixture(const std::string& directory, CodecChoice codec = CodecChoice::raw);

  Store& store() { return *store_; }
  Index& index() { return store_->index(); }
  ChunkStore& chunks() { return store_->chunks(); }
  Metrics& metrics() { return metrics_; }

  ChunkPtr chunk(ByteSpan bytes);
  // Puts without waiting; the answers come with flush.
  void put(RowId content, uint64_t ordinal, ByteSpan bytes,
           std::function<void(const Digest&, Result<Location>)> done = {});
  // Bytes behind a digest: nullopt when no row; errors are failures of the test.
  std::optional<Buffer> find(const Digest& digest);
  // A content of `bytes` zero bytes, known by `path` in a made-up snapshot.
  RowId content(const std::string& path, uint64_t bytes);

 private:
  Metrics metrics_;
  std::unique_ptr<Store> store_;
};

// The program under test as another process: runs this binary's test `name`, which is disabled
// otherwise, with more environment.  Answers the wait status.
int run_self(const std::string& name, std::vector<std::pair<std::string, std::string>> environment);

}  // namespace cake
