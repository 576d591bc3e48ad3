// A plain file's bytes as a content's: what an import does with each file.
#pragma once

#include <functional>

#include "store/store.h"

namespace cake {

struct Adoption {
  enum class State {
    adopted,       // read, and its hash is the content's
    already_here,  // every extent was here; the file was not read
    mismatch,      // another length or hash: nothing of it was taken
  };
  State state = State::mismatch;
  uint64_t bytes = 0;      // of the file
  uint64_t new_bytes = 0;  // of those that the store did not have
};

// Cuts, hashes and stores the file, and marks the content verified.  Nothing names the content's
// extents before the hash of the whole was right, so a file that lies leaves unnamed chunks only.
// `content` has a hash (whole_hash).  `should_stop` true ends it with `cancelled`.
// Errors: no_space when chunks could not be stored.
Result<Adoption> adopt_file(Store& store, const ContentRow& content, const File& file,
                            const std::function<bool()>& should_stop);

}  // namespace cake
