#include "fs/invalidate.h"

#include <unistd.h>

#include <cerrno>

#include "fs/fuse_uapi.h"
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

}  // namespace

Status invalidate_node(Channel& channel, uint64_t node) {
  const InvalidateInode notice{{sizeof(InvalidateInode), kNotifyInvalidateInode, 0}, node, 0, 0};
  if (write(channel.fd(), &notice, sizeof notice) < 0 && errno != ENOENT)
    return errno_error(errno, "dropping a file from the page cache");
  return {};
}

}  // namespace cake
