// A second reader of the log, inside the process.
#pragma once

#include <functional>
#include <string_view>

#include "store/base/log.h"

namespace cake {

// Is told every line of `info` and above, whatever is logged.  Call at start-up; stays until the
// process ends.  Must be quick, and log nothing.
using LogListener = std::function<void(LogLevel, std::string_view)>;
void set_log_listener(LogListener listener);

std::string_view log_level_name(LogLevel level);

}  // namespace cake
