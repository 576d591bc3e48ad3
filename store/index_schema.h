// The tables of the index, and how older ones become today's.
#pragma once

#include <string>

#include "store/sqlite.h"

namespace cake {

// Makes or migrates the tables.  The caller holds the opening lock, so nobody else does it
// meanwhile.  `path` is for messages.  unsupported: made by a newer program.
Status migrate_index(Connection& db, const std::string& path);

}  // namespace cake
