#include "fs/mount.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "fs/mountinfo.h"

namespace cake {
namespace {

// Stale mounts can lie on top of each other; more than this is somebody's game.
constexpr int kMaxStaleMounts = 32;

constexpr std::string_view kIgnored[] = {"ro",       "rw",         "nosuid",
                                         "nodev",    "suid",       "dev",
                                         "exec",     "atime",      "defaults",
                                         "async",    "auto",       "noauto",
                                         "user",     "nouser",     "users",
                                         "owner",    "group",      "_netdev",
                                         "nofail",   "silent",     "loud",
                                         "relatime", "norelatime", "strictatime",
                                         "diratime", "nodiratime", "default_permissions"};

// As the kernel shows them: who copies a line of the mount table means no other mount by them.
constexpr std::string_view kShownWithValue[] = {"user_id=", "group_id=", "rootmode=", "max_read="};

// realpath() of a dead mount's root fails, of its parent does not.
Result<std::string> canonical_path(const std::string& path) {
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) != nullptr) return std::string(resolved);
  if (errno != ENOTCONN) return errno_error(errno, path);
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : trimmed.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  if (name.empty() || name == "." || name == ".." || realpath(parent.c_str(), resolved) == nullptr)
    return errno_error(ENOTCONN, path);
  std::string canonical = resolved;
  if (canonical.back() != '/') canonical += '/';
  return canonical + name;
}

Status detach_stale_mount(const std::string& path) {
  const std::vector<MountEntry> mounts = CAKE_TRY(read_mountinfo());
  const MountEntry* top = find_top_mount(mounts, path);
  if (top == nullptr || top->type != kMountType)
    return Error{Errc::io, cat(path, ": a dead mount of ", top == nullptr ? "?" : top->type,
                               " is in the way (Transport endpoint is not connected); unmount it")};
  return unmount(path, true);
}

// Commas and backslashes inside an option's value, as libfuse and fusermount3 read them.
std::string escape_option(std::string_view value) {
  std::string out;
  for (const char letter : value) {
    if (letter == ',' || letter == '\\') out += '\\';
    out += letter;
  }
  return out;
}

unsigned long mount_flags(const MountOptions& options) {
  return MS_RDONLY | MS_NOSUID | MS_NODEV | (options.is_noexec ? MS_NOEXEC : 0) |
         (options.is_noatime ? MS_NOATIME : 0);
}

Result<File> mount_as_root(const MountOptions& options) {
  const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno_error(errno, "opening /dev/fuse (is the fuse module loaded?)");
  File device(fd, "/dev/fuse");
  const std::string data =
      cat("fd=", fd, ",rootmode=40000,user_id=", geteuid(), ",group_id=", getegid(),
          ",default_permissions,max_read=", options.max_read_bytes,
          options.allow_other ? ",allow_other" : "");
  if (::mount(options.source.c_str(), options.mount_point.c_str(), kMountType, mount_flags(options),
              data.c_str()) != 0)
    return errno_error(errno, cat("mounting on ", options.mount_point));
  return device;
}

// The descriptor that fusermount3 sends, one byte of data with it.
Result<File> receive_descriptor(int socket) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return errno_error(errno, "fusermount3");
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (got == 0 || header == nullptr || header->cmsg_level != SOL_SOCKET ||
      header->cmsg_type != SCM_RIGHTS)
    return Error{Errc::denied, "fusermount3 did not mount; see its message"};
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return File(fd, "/dev/fuse");
}

// Exit status, or -1 when it could not be run or was killed.
int wait_for(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The keeper blocks signals; what it runs should not inherit that.
void unblock_signals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

Result<File> mount_as_user(const MountOptions& options) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return errno_error(errno, "socketpair");
  File ours(sockets[0], "fusermount3");
  File theirs(sockets[1], "fusermount3");
  const std::string words =
      cat("ro,nosuid,nodev,default_permissions,subtype=cakefs,max_read=", options.max_read_bytes,
          options.allow_other ? ",allow_other" : "", options.is_noexec ? ",noexec" : "",
          options.is_noatime ? ",noatime" : "", ",fsname=", escape_option(options.source));
  const std::string number = std::to_string(theirs.fd());
  const pid_t pid = fork();
  if (pid < 0) return errno_error(errno, "starting fusermount3");
  if (pid == 0) {
    unblock_signals();
    fcntl(theirs.fd(), F_SETFD, 0);
    setenv("_FUSE_COMMFD", number.c_str(), 1);
    execlp("fusermount3", "fusermount3", "-o", words.c_str(), "--", options.mount_point.c_str(),
           static_cast<char*>(nullptr));
    _exit(127);
  }
  theirs = File();
  Result<File> device = receive_descriptor(ours.fd());
  const int code = wait_for(pid);
  if (code == 127) return Error{Errc::unsupported, "fusermount3 is not installed (package fuse3)"};
  return device;
}

}  // namespace

bool take_generic_option(MountOptions& options, std::string_view option) {
  if (option.starts_with("x-") || option.starts_with("X-") || option.starts_with("comment=")) {
    return true;
  } else if (option == "allow_other") {
    options.allow_other = true;
  } else if (option == "noexec") {
    options.is_noexec = true;
  } else if (option == "noatime") {
    options.is_noatime = true;
  } else if (option == "remount") {
    options.is_remount = true;
  } else {
    for (const std::string_view word : kShownWithValue)
      if (option.starts_with(word)) return true;
    for (const std::string_view word : kIgnored)
      if (option == word) return true;
    return false;
  }
  return true;
}

Result<std::string> prepare_mount_point(const std::string& path) {
  for (int i = 0; i < kMaxStaleMounts; i++) {
    struct stat info {};
    struct statfs space {};
    // A dead mount's attributes may still be in the kernel's cache; statfs always asks.
    if (stat(path.c_str(), &info) == 0 && statfs(path.c_str(), &space) == 0) {
      if (!S_ISDIR(info.st_mode)) return Error{Errc::invalid, cat(path, ": not a directory")};
      return canonical_path(path);
    }
    if (errno != ENOTCONN) return errno_error(errno, path);
    const std::string canonical = CAKE_TRY(canonical_path(path));
    CAKE_TRY(detach_stale_mount(canonical));
  }
  return Error{Errc::io, cat(path, ": too many dead mounts on top of each other")};
}

Result<File> mount_cakefs(const MountOptions& options) {
  return geteuid() == 0 ? mount_as_root(options) : mount_as_user(options);
}

Status remount_cakefs(const MountOptions& options) {
  const std::vector<MountEntry> mounts = CAKE_TRY(read_mountinfo());
  const MountEntry* top = find_top_mount(mounts, options.mount_point);
  if (top == nullptr || top->type != kMountType)
    return Error{Errc::not_found, cat(options.mount_point, ": no cakefs is mounted there")};
  // MS_BIND: the flags of the mount, not of the file system.
  if (::mount(nullptr, options.mount_point.c_str(), nullptr,
              MS_REMOUNT | MS_BIND | mount_flags(options), nullptr) != 0)
    return errno_error(errno, cat("remounting ", options.mount_point));
  return {};
}

Status unmount(const std::string& mount_point, bool is_lazy) {
  if (geteuid() == 0) {
    if (umount2(mount_point.c_str(), UMOUNT_NOFOLLOW | (is_lazy ? MNT_DETACH : 0)) != 0)
      return errno_error(errno, cat("unmounting ", mount_point));
    return {};
  }
  const pid_t pid = fork();
  if (pid < 0) return errno_error(errno, "starting fusermount3");
  if (pid == 0) {
    unblock_signals();
    execlp("fusermount3", "fusermount3", is_lazy ? "-uz" : "-u", "--", mount_point.c_str(),
           static_cast<char*>(nullptr));
    _exit(127);
  }
  if (wait_for(pid) != 0)
    return Error{Errc::io, cat("unmounting ", mount_point, ": fusermount3 failed")};
  return {};
}

}  // namespace cake
