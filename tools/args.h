// The command line of `cake`: the global flags, the verbs, and the layers of settings they give.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "tools/command.h"

namespace cake {

// Runs `cake ARGS…` and answers its exit status.  `args` leaves out argv[0].
int run_cake(std::vector<std::string> args, std::ostream& out, std::ostream& err);

// The settings of a command: files, environment, then the global flags.
Result<Config> load_config(const Globals& globals);

// Half-open byte range of "A-B" (both inclusive, as in HTTP), "A-" or "-N" (the last N bytes).
struct ByteSelection {
  uint64_t first = 0;
  uint64_t last = UINT64_MAX;  // inclusive
  bool is_suffix = false;      // `last` counts from the end
};
Result<ByteSelection> parse_byte_selection(std::string_view text);
// Cut to a file of `bytes`; invalid when nothing of it lies within.
struct ByteRange;
Result<ByteRange> select_bytes(const ByteSelection& selection, uint64_t bytes);

}  // namespace cake
