// The bytes that the kernel and a FUSE daemon exchange, as far as fs/channel.cc looks at them.
//
// From the interface that include/uapi/linux/fuse.h describes (protocol 7.40; Linux 6.9 and later);
// declared here because distributions ship older headers (Debian 12: 7.38, without resend and
// passthrough) and because only these few fields are needed.  All numbers are in host order.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace cake::uapi {

struct InHeader {
  uint32_t len;
  uint32_t opcode;
  uint64_t unique;
  uint64_t nodeid;
  uint32_t uid;
  uint32_t gid;
  uint32_t pid;
  uint16_t total_extlen;
  uint16_t padding;
};
static_assert(sizeof(InHeader) == 40);

// `error` is 0 or a negated errno; in a notification `unique` is 0 and `error` its code.
struct OutHeader {
  uint32_t len;
  int32_t error;
  uint64_t unique;
};
static_assert(sizeof(OutHeader) == 16);

struct InitIn {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint32_t flags2;  // flags 32 to 63; there when `flags` has kInitExt
  uint32_t unused[11];
};
static_assert(sizeof(InitIn) == 64);

struct InitOut {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;
  uint32_t unused[6];
};
static_assert(sizeof(InitOut) == 64);

struct OpenOut {
  uint64_t fh;
  uint32_t open_flags;
  int32_t backing_id;  // padding before 7.40
};
static_assert(sizeof(OpenOut) == 16);

// Argument of kIocBackingOpen, which answers with the backing id.
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
static_assert(sizeof(BackingMap) == 16);

constexpr uint32_t kOpOpen = 14;
constexpr uint32_t kOpInit = 26;

// Asks for every request that was read but not answered to be sent again, with kUniqueResent set.
// The kernel offers kInit2HasResend when it knows this; it does not look for it in the reply.
constexpr int32_t kNotifyResend = 7;
constexpr uint64_t kUniqueResent = uint64_t{1} << 63;

constexpr uint32_t kInitParallelDirops = 1u << 18;
constexpr uint32_t kInitExt = 1u << 30;
constexpr uint32_t kInit2Passthrough = 1u << (37 - 32);
constexpr uint32_t kInit2HasResend = 1u << (39 - 32);

constexpr uint32_t kOpenKeepCache = 1u << 1;
constexpr uint32_t kOpenPassthrough = 1u << 7;

constexpr unsigned long kIocBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kIocBackingClose = _IOW(229, 2, uint32_t);

}  // namespace cake::uapi
