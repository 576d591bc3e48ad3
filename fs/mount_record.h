// Who serves which mount: a small file a mount, written by its keeper, read by `cake ps`, `cake
// upgrade` and `cake umount`.
//
// Lies in /run/cakefs for root, else in $XDG_RUNTIME_DIR/cakefs or /tmp/cakefs-UID.  Lines "key
// value", blanks and backslashes in values as \ooo.  A record without its keeper or its mount is
// removed by whoever finds it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fs/process_identity.h"
#include "store/base/clock.h"
#include "store/base/result.h"

namespace cake {

struct MountRecord {
  std::string path;  // of the record itself
  uint64_t written_at_ns = 0;
  ProcessIdentity keeper;
  pid_t worker_pid = 0;
  unsigned generation = 0;  // how many workers there were
  unsigned upgrades = 0;
  unsigned device_major = 0;
  unsigned device_minor = 0;
  std::string source;
  std::string store;
  std::string mount_point;
  std::string program;
};

std::string runtime_directory();
// Makes it, for this user alone (root's is readable by all).  denied when it is someone else's.
Result<std::string> make_runtime_directory();

std::string format_record(const MountRecord& record);
Result<MountRecord> parse_record(std::string_view text);

// Of this user's runtime directory, in mounting order by path; one for each mount.  Their keepers
// are alive, or of another PID namespace.
Result<std::vector<MountRecord>> list_mount_records();
// By mount point, canonical or not.  not_found when no live keeper has it.
Result<MountRecord> find_mount_record(const std::string& mount_point);

// Unmounts and, unless lazy, waits until the keeper is gone.  Works without a record as well.
Status end_mount(const std::string& mount_point, bool is_lazy, const Deadline& deadline);

// Moves the mount to the program that is now installed and waits until that serves.
Status upgrade_mount(const MountRecord& record, const Deadline& deadline);

}  // namespace cake
