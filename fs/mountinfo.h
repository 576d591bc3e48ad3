// Mounts as the kernel lists them, without asking any file system: stat() on a mount can block on
// the very process that asks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace cake {

constexpr const char* kMountType = "fuse.cakefs";

struct MountEntry {
  unsigned device_major = 0;
  unsigned device_minor = 0;
  std::string mount_point;
  std::string type;
  std::string source;
  std::string super_options;
};

// The text of /proc/PID/mountinfo (proc(5)), in mounting order; malformed lines are left out.
std::vector<MountEntry> parse_mountinfo(std::string_view text);

// Of this process's mount namespace.
Result<std::vector<MountEntry>> read_mountinfo();

// The topmost mount at exactly this canonical path; nullptr if none is there.
const MountEntry* find_top_mount(const std::vector<MountEntry>& mounts, std::string_view path);

// Spaces, newlines and backslashes as \ooo, and back.
std::string escape_octal(std::string_view text);
std::string unescape_octal(std::string_view text);

}  // namespace cake
