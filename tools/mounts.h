// From the words of a mount command to a mount.
#pragma once

#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/keeper.h"
#include "store/base/config.h"

namespace cake {

// What a mount shows.
struct MountRequest {
  std::string source;  // as typed, for the mount table
  std::string directory;
  std::vector<std::string> options;  // split at commas
  bool is_foreground = false;
  bool is_dry_run = false;
  bool ignores_unknown = false;  // mount.cakefs -s
};

// Checks everything that can be checked without mounting.  `config` gets the options and what the
// source says (rev, subdir).  Errors: invalid.
Result<KeeperOptions> prepare_mount(const MountRequest& request, Config& config);

// Exit status of mount(8); errors are said on `err`, with `program` in front.
int run_mount(const MountRequest& request, Config config, std::string_view program,
              std::ostream& err);

// mount.cakefs SOURCE DIR [-sfnvw] [-o OPTIONS]: as mount(8) calls it.  `args` leaves out argv[0].
int run_mount_helper(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);
// Its words; nullopt after a usage error, which was said.
std::optional<MountRequest> parse_mount_helper(const std::vector<std::string>& args,
                                               std::ostream& err);

// Folder of a repo's snapshot below a live mount of the whole hub with this store, when that mount
// belongs to the same hub.
std::optional<std::string> find_mounted(const std::string& source,
                                        const std::string& store_directory,
                                        const std::string& folder);

}  // namespace cake
