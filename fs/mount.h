// Putting a cakefs mount into the tree and taking it out, as root (mount(2)) or as an ordinary user
// (fusermount3).  Who then serves it: keeper.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/base/file.h"
#include "store/base/result.h"

namespace cake {

struct MountOptions {
  std::string source;       // as the user typed it: "hf:", "hf:ORG/NAME@REV"
  std::string mount_point;  // canonical: from prepare_mount_point
  std::string store;        // shown by `cake ps`; not interpreted here
  bool allow_other = false;
  unsigned max_read_bytes = 1u << 20;
  unsigned read_ahead_kb = 1024;  // as root
  bool is_noexec = false;
  bool is_noatime = false;
  bool is_remount = false;
};

// Takes the options that every file system gets from mount(8) and fstab (ro, rw, nosuid, nodev,
// noexec, noatime, remount, _netdev, nofail, user, x-*, …, and allow_other), and those that the
// kernel shows in the mount table.  False: not one of them.
// Always in force, whatever is said: ro, nosuid, nodev, default_permissions.
bool take_generic_option(MountOptions& options, std::string_view option);

// The canonical path of a directory to mount on.  A cakefs mount that a killed keeper left there
// ("Transport endpoint is not connected") is detached first; another file system's is an error.
Result<std::string> prepare_mount_point(const std::string& path);

// Mounts; the File is the kernel connection.  Nobody serves it yet, so whoever looks at the mount
// point waits.  Do not touch it from the process that will serve it.
Result<File> mount_cakefs(const MountOptions& options);

// Gives the cakefs mount there these flags (noexec, noatime); what it shows and its settings stay.
Status remount_cakefs(const MountOptions& options);

// `mount_point` is canonical.  Lazy: out of sight now, ended when the last file is closed.
// Allocates nothing as root.
Status unmount(const std::string& mount_point, bool is_lazy);

}  // namespace cake
