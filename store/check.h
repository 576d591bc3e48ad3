// Whether index and packs agree, and what to do where they do not.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "store/base/clock.h"
#include "store/store.h"

namespace cake {

struct CheckOptions {
  // Reads and hashes every chunk; else only looks at lengths and entry headers.
  bool reads_chunks = true;
  // Drops rows that are wrong (their bytes are fetched again when they are read), corrects sums,
  // indexes packs that have no row.
  bool repairs = false;
  // Called now and then: bytes looked at, of how many.
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;
  std::shared_ptr<const CancelToken> cancel;
};

struct CheckProblem {
  // On the command line and in JSON by these names.
  enum class Kind {
    index_damaged,   // SQLite finds its file damaged; only a rebuild helps
    pack_missing,    // a row without its file, while chunks should be in it
    pack_damaged,    // no header of a pack, or shorter than what is indexed
    pack_unknown,    // a file without a row
    chunk_damaged,   // a row whose bytes are not there or not what they should be
    recipe_damaged,  // digests that cannot be, or sums that are wrong
    name_damaged,    // a listing that does not parse, or names contents that are not there
  };
  Kind kind = Kind::chunk_damaged;
  std::string what;
  bool is_repaired = false;
};
std::string_view check_kind_name(CheckProblem::Kind kind);

struct CheckReport {
  // Beyond these, problems are counted only.
  static constexpr size_t kMaxListed = 1'000;

  uint64_t packs = 0, chunks = 0, contents = 0, snapshots = 0;
  uint64_t bytes = 0;  // of chunks, as stored
  uint64_t problem_count = 0, repaired_count = 0;
  std::vector<CheckProblem> problems;
  bool is_clean() const { return problem_count == 0; }
};

// Others may use the store meanwhile: what they evict or add under the check's eyes is no problem.
// Errors: cancelled, and what keeps the check from being made.
Result<CheckReport> check_store(Store& store, const CheckOptions& options);

// Sets the index aside (index.db.broken*), so that the next Store::open makes a new one from the
// packs.  invalid: a process has the store open.
Status set_index_aside(const std::string& directory);

}  // namespace cake
