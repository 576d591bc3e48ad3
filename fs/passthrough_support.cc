#include "fs/passthrough_support.h"

#include <sys/utsname.h>
#include <sys/vfs.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {

namespace {

constexpr uint64_t kMaxConfigBytes = 4 * kMiB;
constexpr unsigned kSysAdmin = 21;  // CAP_SYS_ADMIN, capability.h
// magic.h of the kernel: file systems that lie on another, as overlayfs of containers does.  The
// kernel takes no backing file from them, because we ask for a stack of one.
constexpr unsigned long kOverlayMagic = 0x794c7630;
constexpr unsigned long kEcryptMagic = 0xf15f;
constexpr unsigned long kFuseMagic = 0x65735546;

bool has_sys_admin() {
  const Result<std::string> status = read_text_file("/proc/self/status", 64 * kKiB);
  const size_t at = status ? status->find("CapEff:\t") : std::string::npos;
  if (at == std::string::npos) return false;
  return (std::strtoull(status->c_str() + at + 8, nullptr, 16) >> kSysAdmin & 1) != 0;
}

bool is_switched_off(const std::string& release) {
  const Result<std::string> config = read_text_file("/boot/config-" + release, kMaxConfigBytes);
  return config && config->find("# CONFIG_FUSE_PASSTHROUGH is not set") != std::string::npos;
}

// The file system of the first folder on the way up that exists.
bool is_stacked(std::string directory) {
  struct statfs facts {};
  while (::statfs(directory.empty() ? "/" : directory.c_str(), &facts) != 0) {
    if (directory.empty()) return false;
    const size_t slash = directory.rfind('/');
    directory.resize(slash == std::string::npos ? 0 : slash);
  }
  const auto type = static_cast<unsigned long>(facts.f_type);
  return type == kOverlayMagic || type == kEcryptMagic || type == kFuseMagic;
}

}  // namespace

std::optional<Obstacle> passthrough_obstacle(const std::string& store_directory) {
  utsname system{};
  uname(&system);
  int major = 0, minor = 0;
  if (std::sscanf(system.release, "%d.%d", &major, &minor) != 2 || major < 6 ||
      (major == 6 && minor < 9))
    return Obstacle{cat("Linux ", system.release, " does not know it"), "Linux 6.9 or newer"};
  if (is_switched_off(system.release))
    return Obstacle{"this kernel was built without CONFIG_FUSE_PASSTHROUGH", "another kernel"};
  if (!has_sys_admin())
    return Obstacle{"registering a file for it needs CAP_SYS_ADMIN", "mount as root"};
  if (is_stacked(store_directory))
    return Obstacle{"the store lies on a stacked file system (overlayfs, FUSE)",
                    "put the store on a disk of its own (a volume): store=DIR"};
  return std::nullopt;
}

}  // namespace cake
