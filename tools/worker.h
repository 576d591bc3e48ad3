// The worker process of a mount: everything but holding it.
#pragma once

#include <string>
#include <vector>

#include "store/base/config.h"

namespace cake {

// What a keeper's worker does; `args` are SOURCE KEY=VALUE….  Exit status of mount(8) when it
// cannot start, else that of run_worker.
int run_mount_worker(const std::vector<std::string>& args);

// The settings as the command that mounted resolved them: files and environment may have changed
// since, and a worker that is started again must serve the same mount.
Result<Config> worker_config(const std::vector<std::string>& args);

}  // namespace cake
