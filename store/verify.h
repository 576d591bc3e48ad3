// Whether the bytes at rest are what they were named by: chunks by their digest, whole files by the
// hash that the hub gives.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "store/store.h"

namespace cake {

// How a content is named by its hub; nullopt when the hub masks that.
struct WholeHash {
  FileHash kind = FileHash::sha256;
  std::string hex;
};
std::optional<WholeHash> whole_hash(const ContentRow& content);

struct ContentCheck {
  enum class State {
    verified,    // the whole-file hash is the hub's
    mismatch,    // it is not
    incomplete,  // parts are not here; those that are were right
    no_hash,     // all of it is here, but there is nothing to compare with
  };
  State state = State::incomplete;
  uint64_t checked_bytes = 0;
  // Chunks that were not what their row says; their rows are dropped, so these are missing now.
  std::vector<ByteRange> damaged;
};

struct VerifyOptions {
  // Of every chunk, besides the checksum that each read compares anyway.
  bool checks_digests = true;
  // Nothing is read of a content that is not here as a whole: only the proof is wanted.
  bool only_whole = false;
  // Nothing is dropped or marked: what is found is only told.
  bool only_looks = false;
  // Asked between chunks; true ends the check with `cancelled`.
  std::function<bool()> should_stop;
};

// Reads all of a content that is here.  Marks it verified, or not; a mismatch is left for the
// caller to act on.
Result<ContentCheck> check_content(Store& store, const ContentRow& content,
                                   const VerifyOptions& options);

// Makes a content that proved wrong one that was never fetched: which extent is the wrong one
// cannot be told from the hash of the whole.  Its chunks stay for those who share them.
Status reject_content(Store& store, const ContentRow& content);

}  // namespace cake
