#include "fs/mount_record.h"

#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>

#include "fs/mount.h"
#include "fs/mountinfo.h"
#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

constexpr uint64_t kMaxRecordBytes = 128 * kKiB;
constexpr int kPollMs = 100;  // how late a cancelled wait ends

std::string canonical_or_same(const std::string& path) {
  char resolved[PATH_MAX];
  return realpath(path.c_str(), resolved) != nullptr ? std::string(resolved) : path;
}

bool is_mounted(const std::vector<MountEntry>& mounts, const MountRecord& record) {
  for (const MountEntry& entry : mounts)
    if (entry.device_major == record.device_major && entry.device_minor == record.device_minor &&
        entry.type == kMountType)
      return true;
  return false;
}

// The kernel gives a device number out again as soon as its mount is gone, while the keeper that
// had it still tidies up: of two records the one written last is the mount's.
void keep_newest(std::vector<MountRecord>& records, MountRecord record) {
  const auto same = std::find_if(records.begin(), records.end(), [&](const MountRecord& other) {
    return other.device_major == record.device_major && other.device_minor == record.device_minor;
  });
  if (same == records.end())
    records.push_back(std::move(record));
  else if (same->written_at_ns < record.written_at_ns)
    *same = std::move(record);
}

uint64_t modified_at_ns(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return 0;
  return static_cast<uint64_t>(info.st_mtim.tv_sec) * 1'000'000'000 +
         static_cast<uint64_t>(info.st_mtim.tv_nsec);
}

Status set_field(MountRecord& record, std::string_view key, std::string_view value) {
  const std::string text = unescape_octal(value);
  const auto large_number = [&] { return uint64_t{strtoull(text.c_str(), nullptr, 10)}; };
  const auto number = [&] { return static_cast<unsigned>(large_number()); };
  if (key == "keeper") record.keeper.pid = static_cast<pid_t>(number());
  if (key == "started_at") record.keeper.started_at = large_number();
  if (key == "pid_namespace") record.keeper.pid_namespace = large_number();
  if (key == "worker") record.worker_pid = static_cast<pid_t>(number());
  if (key == "generation") record.generation = number();
  if (key == "upgrades") record.upgrades = number();
  if (key == "major") record.device_major = number();
  if (key == "minor") record.device_minor = number();
  if (key == "source") record.source = text;
  if (key == "store") record.store = text;
  if (key == "mount_point") record.mount_point = text;
  if (key == "program") record.program = text;
  return {};  // a newer keeper may write more
}

// A process can be waited for without being its parent.
Status wait_for_exit(int pidfd, const Deadline& deadline) {
  pollfd source{pidfd, POLLIN, 0};
  for (;;) {
    const int ready = poll(&source, 1, kPollMs);
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return errno_error(errno, "waiting for the keeper");
    CAKE_TRY(deadline.check());
  }
}

}  // namespace

std::string runtime_directory() {
  if (geteuid() == 0) return "/run/cakefs";
  const char* directory = getenv("XDG_RUNTIME_DIR");
  if (directory != nullptr && directory[0] == '/') return cat(directory, "/cakefs");
  return cat("/tmp/cakefs-", geteuid());
}

Result<std::string> make_runtime_directory() {
  const std::string directory = runtime_directory();
  const mode_t mode = geteuid() == 0 ? 0755 : 0700;
  if (mkdir(directory.c_str(), mode) != 0 && errno != EEXIST) return errno_error(errno, directory);
  struct stat info {};
  if (lstat(directory.c_str(), &info) != 0) return errno_error(errno, directory);
  // In /tmp anyone may have made it first.
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 0022) != 0)
    return Error{Errc::denied, cat(directory, " is not a directory that only you can write to")};
  return directory;
}

std::string format_record(const MountRecord& record) {
  return cat("keeper ", record.keeper.pid, "\nstarted_at ", record.keeper.started_at,
             "\npid_namespace ", record.keeper.pid_namespace, "\nworker ", record.worker_pid,
             "\ngeneration ", record.generation, "\nupgrades ", record.upgrades, "\nmajor ",
             record.device_major, "\nminor ", record.device_minor, "\nsource ",
             escape_octal(record.source), "\nstore ", escape_octal(record.store), "\nmount_point ",
             escape_octal(record.mount_point), "\nprogram ", escape_octal(record.program), "\n");
}

Result<MountRecord> parse_record(std::string_view text) {
  MountRecord record;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t blank = line.find(' ');
    if (blank != std::string_view::npos)
      CAKE_TRY(set_field(record, line.substr(0, blank), line.substr(blank + 1)));
  }
  if (record.keeper.pid <= 0 || record.mount_point.empty())
    return Error{Errc::corrupt, "a mount's record is incomplete"};
  return record;
}

Result<std::vector<MountRecord>> list_mount_records() {
  const std::string directory = runtime_directory();
  std::vector<MountRecord> found;
  if (!path_exists(directory)) return found;
  const std::vector<MountEntry> mounts = CAKE_TRY(read_mountinfo());
  for (const std::string& name : CAKE_TRY(list_directory(directory))) {
    if (!name.ends_with(".mount")) continue;
    const std::string path = cat(directory, "/", name);
    const Result<std::string> text = read_text_file(path, kMaxRecordBytes);
    if (!text) continue;  // removed since
    Result<MountRecord> record = parse_record(*text);
    if (!record) continue;
    record->path = path;
    record->written_at_ns = modified_at_ns(path);
    if (record->keeper.presence() == ProcessIdentity::Presence::gone) {
      CAKE_TRY(remove_file(path));
    } else if (is_mounted(mounts, *record)) {  // else detached, or another namespace's
      keep_newest(found, std::move(*record));
    }
  }
  return found;
}

Result<MountRecord> find_mount_record(const std::string& mount_point) {
  const std::string canonical = canonical_or_same(mount_point);
  const std::vector<MountEntry> mounts = CAKE_TRY(read_mountinfo());
  const MountEntry* top = find_top_mount(mounts, canonical);
  for (MountRecord& record : CAKE_TRY(list_mount_records()))
    if (top != nullptr && record.device_major == top->device_major &&
        record.device_minor == top->device_minor)
      return std::move(record);
  return Error{Errc::not_found, cat(mount_point, ": no cakefs mount of yours is there")};
}

Status end_mount(const std::string& mount_point, bool is_lazy, const Deadline& deadline) {
  const std::string canonical = canonical_or_same(mount_point);
  const std::vector<MountEntry> mounts = CAKE_TRY(read_mountinfo());
  const MountEntry* top = find_top_mount(mounts, canonical);
  if (top == nullptr || top->type != kMountType)
    return Error{Errc::not_found, cat(mount_point, ": no cakefs mount is there")};
  const Result<MountRecord> record = find_mount_record(canonical);
  File keeper;
  if (record && !is_lazy) keeper = record->keeper.open();
  CAKE_TRY(unmount(canonical, is_lazy));
  return keeper.is_open() ? wait_for_exit(keeper.fd(), deadline) : Status();
}

Status upgrade_mount(const MountRecord& record, const Deadline& deadline) {
  File watch(inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "inotify");
  const std::string directory = runtime_directory();
  if (!watch.is_open() ||
      inotify_add_watch(watch.fd(), directory.c_str(), IN_MOVED_TO | IN_DELETE) < 0)
    return errno_error(errno, directory);
  if (record.keeper.presence() == ProcessIdentity::Presence::elsewhere)
    return Error{Errc::unsupported, cat(record.mount_point,
                                        ": was mounted in another PID namespace"
                                        " (container), upgrade it from there")};
  const File keeper = record.keeper.open();
  if (!keeper.is_open() || syscall(SYS_pidfd_send_signal, keeper.fd(), SIGHUP, nullptr, 0) != 0)
    return errno_error(keeper.is_open() ? errno : ESRCH,
                       cat("asking the keeper of ", record.mount_point));
  for (;;) {
    const Result<std::string> text = read_text_file(record.path, kMaxRecordBytes);
    if (!text || record.keeper.presence() == ProcessIdentity::Presence::gone)
      return Error{Errc::io, cat(record.mount_point, ": ended during the upgrade; see syslog")};
    const MountRecord now = CAKE_TRY(parse_record(*text));
    if (now.upgrades > record.upgrades) return {};
    if (now.generation > record.generation)
      return Error{Errc::io, cat(record.mount_point, ": ", record.program,
                                 " could not take over; the old program serves on; see syslog")};
    CAKE_TRY(deadline.check());
    pollfd source{watch.fd(), POLLIN, 0};
    poll(&source, 1, kPollMs);
    char events[4096];
    while (read(watch.fd(), events, sizeof events) > 0) {
    }
  }
}

}  // namespace cake
