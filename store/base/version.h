// The program's version, for `--version` and the User-Agent.
#pragma once

#include <string_view>

namespace cake {

// "MAJOR.MINOR.PATCH", as CMakeLists.txt gives it to the project.
std::string_view version();

}  // namespace cake
