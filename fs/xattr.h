// The attributes user.cake.*: what an operator asks of a file or directory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "fetch/client.h"
#include "fs/view.h"

namespace cake {

using Xattrs = std::vector<std::pair<std::string, std::string>>;

// Of a file: sha256 (or git oid), cached, codec, verified, error; of a directory: commit, source.
// Facts that do not exist (no error, hash masked) are left out.  Reads the index; no network.
Result<Xattrs> xattrs_of(Client& client, View& view, uint64_t node);

}  // namespace cake
