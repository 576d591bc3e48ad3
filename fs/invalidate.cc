#include "fs/invalidate.h"

#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "fs/fuse_uapi.h"
#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {

namespace {

// FUSE_NOTIFY_INVAL_INODE and its body, as include/uapi/linux/fuse.h has them.
constexpr int32_t kNotifyInvalidateInode = 2;
struct InvalidateInode {
  uapi::OutHeader header;
  uint64_t node;
  int64_t offset;  // 0 and length 0: all pages
  int64_t length;
};
static_assert(sizeof(InvalidateInode) == 40);

constexpr int kStopPollMs = 100;

Error drop_error(int error_number) {
  return errno_error(error_number, "dropping a file from the page cache");
}

// The program that is running, even when its file was replaced; by vfork: a copy of the worker's
// memory would take the pages that the kernel writes requests to.
Result<pid_t> spawn_invalidation(int fuse_fd, uint64_t node) {
  std::string words[] = {"cake", kInvalidateCommand, cat(node)};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  posix_spawn_file_actions_t actions;
  if (const int failed = posix_spawn_file_actions_init(&actions); failed != 0)
    return drop_error(failed);
  int failed = posix_spawn_file_actions_adddup2(&actions, fuse_fd, STDIN_FILENO);
  pid_t pid = -1;
  if (failed == 0) failed = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return drop_error(failed);
  return pid;
}

}  // namespace

Status invalidate_node(Channel& channel, uint64_t node, const std::function<bool()>& should_stop) {
  const pid_t pid = CAKE_TRY(spawn_invalidation(channel.fd(), node));
  const File process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)), "invalidation");
  if (!process.is_open()) return drop_error(errno);
  pollfd ended{process.fd(), POLLIN, 0};
  while (poll(&ended, 1, kStopPollMs) <= 0)
    if (should_stop()) return Error{Errc::cancelled, "dropping a file from the page cache"};
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return drop_error(errno);
  if (!WIFEXITED(status)) return drop_error(EIO);
  if (WEXITSTATUS(status) != 0) return drop_error(WEXITSTATUS(status));
  return {};
}

int run_invalidate(const std::vector<std::string>& arguments) {
  if (arguments.size() != 1) return EINVAL;
  const uint64_t node = strtoull(arguments[0].c_str(), nullptr, 10);
  const InvalidateInode notice{{sizeof(InvalidateInode), kNotifyInvalidateInode, 0}, node, 0, 0};
  if (write(STDIN_FILENO, &notice, sizeof notice) < 0 && errno != ENOENT) return errno;
  return 0;
}

}  // namespace cake
