#include "fs/abort_connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <initializer_list>

namespace cake {

int abort_connection(int fuse_fd, uint32_t device_minor) {
  pollfd connection{fuse_fd, POLLIN, 0};
  // One that has ended may have left its device number to another mount.
  if (poll(&connection, 1, 0) < 0 || (connection.revents & POLLERR) != 0) return 0;
  // fusectl is not mounted everywhere.  Root needs no mount point for it; others, to whom their own
  // connections belong there, take what there is.
  const int context = fsopen("fusectl", FSOPEN_CLOEXEC);
  if (context >= 0) fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
  int control = context >= 0 ? fsmount(context, FSMOUNT_CLOEXEC, 0) : -1;
  if (control < 0) control = open("/sys/fs/fuse/connections", O_PATH | O_DIRECTORY | O_CLOEXEC);
  char path[32];
  snprintf(path, sizeof path, "%u/abort", device_minor);
  const int fd = openat(control, path, O_WRONLY | O_CLOEXEC);
  const int failed = fd >= 0 && write(fd, "1", 1) != 1 ? errno : 0;
  for (const int opened : {fd, control, context})
    if (opened >= 0) close(opened);
  return failed;
}

}  // namespace cake
