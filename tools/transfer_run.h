// A transfer from start to end, as commands run it: workers, progress, signals.
#pragma once

#include "tools/command.h"
#include "tools/interrupts.h"
#include "tools/transfer.h"

namespace cake {

// As flags, format and stderr have it.
ProgressStyle progress_style(const Context& context);

// Reads all files of the list, and writes out what came also after an error or a signal.
// Errors: cancelled after a signal; no_space when the store could not keep what was read for it.
Status run_transfer(Context& context, Session& session, Interrupts& interrupts,
                    std::vector<TransferFile> files, unsigned workers);

}  // namespace cake
