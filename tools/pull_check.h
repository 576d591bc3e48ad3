// What a pull compares before it says that all is here.
#pragma once

#include <vector>

#include "tools/command.h"
#include "tools/interrupts.h"
#include "tools/transfer.h"

namespace cake {

// Of the files that are here, those whose bytes are not what the hub's hash names.  Each is
// forgotten, in the store too, and comes back with all of it to fetch.  What a mount or an earlier
// pull has proved is not read again.  Errors: cancelled after a signal.
Result<std::vector<TransferFile>> take_wrong_files(Session& session, Interrupts& interrupts,
                                                   const std::vector<TransferFile>& files,
                                                   unsigned workers);

}  // namespace cake
