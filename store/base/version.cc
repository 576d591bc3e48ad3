#include "store/base/version.h"

namespace cake {

std::string_view version() {
  // Defined by the build for this file alone, so that a new version recompiles one file.
  return CAKE_VERSION;
}

}  // namespace cake
