// Where a file is written before it takes its name.
#pragma once

#include <string>

namespace cake {

// Beside `target`, of this process alone; the same for the same target.  Ends in ".part", which
// `cake verify REF DIR` does not take for a file of the repo.
std::string part_name(const std::string& target);

}  // namespace cake
