#include "store/base/part_name.h"

#include <unistd.h>

#include <climits>
#include <filesystem>

#include "store/base/digest.h"

namespace cake {

std::string part_name(const std::string& target) {
  const std::filesystem::path path(target);
  const std::string name = path.filename().string();
  const std::string ending = cat(".", ::getpid(), ".part");
  std::string part = cat(".", name, ending);
  // A name that leaves no room for more is not cut: two that begin alike would be one, and half a
  // character is refused by some file systems.
  if (part.size() > NAME_MAX) part = cat(".", blake3(as_bytes(name)).hex(), ending);
  return (path.parent_path() / part).string();
}

}  // namespace cake
