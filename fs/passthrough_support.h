// Whether the kernel may read materialized files by itself on this machine.
#pragma once

#include <optional>
#include <string>

namespace cake {

struct Obstacle {
  std::string what;
  std::string remedy;
};

// What stands in the way of FUSE passthrough for a mount that this process would make over a store
// in `store_directory` (which need not be there yet); nullopt: nothing that can be seen from here.
std::optional<Obstacle> passthrough_obstacle(const std::string& store_directory);

}  // namespace cake
