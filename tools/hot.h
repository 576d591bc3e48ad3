// `cake pin --hot` and its end: which files of a repo are kept materialized.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/materialize.h"
#include "tools/command.h"

namespace cake {

// What is left free on the disk is the setting's.
Result<MaterializeOptions> materialize_options(const Context& context, const Store& store);

struct HotSums {
  uint64_t files = 0;       // materialized now, before or after
  uint64_t bytes = 0;       // of them
  uint64_t incomplete = 0;  // files that have to be pulled first
};

// Materializes the contents, one after the other, saying which; what is too small gains nothing and
// is left out.  Files that are open on a mount are read as before until they are opened again.
Result<HotSums> materialize_contents(Context& context, Store& store,
                                     std::span<const RowId> contents);

// The files go back into packs.  Answers how many stay because they are open somewhere.
Result<uint64_t> unmaterialize_contents(Store& store, std::span<const RowId> contents);

}  // namespace cake
