#include "fs/channel.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fs/fuse_uapi.h"
#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/base/log.h"

namespace cake {
namespace {

thread_local bool t_is_request_resent = false;
thread_local int32_t t_backing_id = 0;
thread_local const void* t_touched_buffer = nullptr;

// A request whose buffer page is not resident when its worker is killed ends in EIO and is not sent
// again: the kernel was inside the copy.  libfuse keeps one buffer a thread, so touching it once
// makes it resident before the first read.
void make_resident(void* buffer, size_t bytes) {
  if (t_touched_buffer == buffer) return;
  std::memset(buffer, 0, bytes);
  t_touched_buffer = buffer;
}

size_t total_bytes(const iovec* parts, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  return bytes;
}

uapi::InitOut load_reply(const KeeperState& state) {
  uapi::InitOut reply{};
  const size_t bytes = state.init_reply_bytes.load();
  if (bytes > sizeof(uapi::OutHeader))
    std::memcpy(&reply, state.init_reply + sizeof(uapi::OutHeader),
                std::min(sizeof reply, bytes - sizeof(uapi::OutHeader)));
  return reply;
}

uapi::InitIn load_request(const KeeperState& state) {
  uapi::InitIn request{};
  const size_t bytes = state.init_request_bytes.load();
  if (bytes > sizeof(uapi::InHeader))
    std::memcpy(&request, state.init_request + sizeof(uapi::InHeader),
                std::min(sizeof request, bytes - sizeof(uapi::InHeader)));
  return request;
}

bool offers(const uapi::InitIn& request, uint32_t flag2) {
  return (request.flags & uapi::kInitExt) != 0 && (request.flags2 & flag2) != 0;
}

// What libfuse 3.14 does not know or never asks for.
void amend_init_reply(const uapi::InitIn& request, uapi::InitOut& reply) {
  // Without it one unanswered LOOKUP blocks every other new look-up of that directory.
  reply.flags |= request.flags & uapi::kInitParallelDirops;
  if (offers(request, uapi::kInit2HasResend)) {
    reply.flags |= uapi::kInitExt;
    reply.flags2 |= uapi::kInit2HasResend;
  }
  // Asked for whether or not this version uses it: a later one, upgraded to, cannot ask any more.
  // Registering a backing file needs CAP_SYS_ADMIN, so for others the flag would be of no use.
  if (offers(request, uapi::kInit2Passthrough) && geteuid() == 0) {
    reply.flags |= uapi::kInitExt;
    reply.flags2 |= uapi::kInit2Passthrough;
    reply.max_stack_depth = 1;
  }
}

}  // namespace

Result<std::unique_ptr<Channel>> Channel::adopt() {
  const KeeperDescriptors descriptors = CAKE_TRY(inherited_descriptors());
  KeeperMemory memory = CAKE_TRY(KeeperMemory::adopt(descriptors.memory, false));
  for (const int fd : {descriptors.fuse, descriptors.memory})
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return errno_error(errno, "the keeper's descriptors");
  return std::unique_ptr<Channel>(new Channel(std::move(memory), descriptors.fuse));
}

Channel::Channel(KeeperMemory memory, int fuse_fd)
    : memory_(std::make_unique<KeeperMemory>(std::move(memory))),
      state_(**memory_),
      fuse_fd_(fuse_fd),
      is_resumed_(state_.init_reply_bytes.load() != 0),
      opens_(state_),
      ledger_(state_) {}

Channel::Channel(int fuse_fd, KeeperState& state)
    : state_(state),
      fuse_fd_(fuse_fd),
      is_resumed_(state.init_reply_bytes.load() != 0),
      opens_(state_),
      ledger_(state_) {}

Channel::~Channel() = default;

bool Channel::has_resend() const {
  return offers(load_request(state_), uapi::kInit2HasResend);
}

bool Channel::has_passthrough() const {
  const uapi::InitOut reply = load_reply(state_);
  return (reply.flags & uapi::kInitExt) != 0 && (reply.flags2 & uapi::kInit2Passthrough) != 0;
}

bool Channel::is_request_resent() {
  return t_is_request_resent;
}

Result<int32_t> Channel::register_backing(int file_fd) {
  if (!has_passthrough() || !opens_.may_pass_through())
    return Error{Errc::unsupported, "passthrough was not agreed with the kernel"};
  uapi::BackingMap map{};
  map.fd = file_fd;
  const int backing_id = ioctl(fuse_fd_, uapi::kIocBackingOpen, &map);
  if (backing_id < 0) return errno_error(errno, "registering a file for passthrough");
  return static_cast<int32_t>(backing_id);
}

Status Channel::unregister_backing(int32_t backing_id) {
  uint32_t id = static_cast<uint32_t>(backing_id);
  if (ioctl(fuse_fd_, uapi::kIocBackingClose, &id) != 0)
    return errno_error(errno, "ending the passthrough of a file");
  return {};
}

void Channel::pass_next_open_through(int32_t backing_id) {
  t_backing_id = backing_id;
}

// The wishes of a new program are cut to what was agreed by showing it a kernel that offers only
// that.  A request is then understood as the first worker's libfuse understood it.
ssize_t Channel::replay_init(void* buffer, size_t bytes) {
  const size_t recorded = state_.init_request_bytes.load();
  if (recorded < sizeof(uapi::InHeader) || recorded > sizeof state_.init_request ||
      recorded > bytes) {
    errno = EPROTO;
    return -1;
  }
  std::memcpy(buffer, state_.init_request, recorded);
  uapi::InHeader header;
  std::memcpy(&header, buffer, sizeof header);
  init_unique_ = header.unique;
  uapi::InitIn request = load_request(state_);
  const uapi::InitOut agreed = load_reply(state_);
  request.max_readahead = agreed.max_readahead;
  request.flags &= agreed.flags | uapi::kInitExt;
  request.flags2 &= agreed.flags2;
  std::memcpy(static_cast<std::byte*>(buffer) + sizeof header, &request,
              std::min(sizeof request, recorded - sizeof header));
  return static_cast<ssize_t>(recorded);
}

void Channel::record_init_request(const void* request, size_t bytes) {
  if (bytes > sizeof state_.init_request) return;  // not seen; then there is no resuming
  std::memcpy(state_.init_request, request, bytes);
  state_.init_request_bytes.store(static_cast<uint32_t>(bytes));
}

ssize_t Channel::receive(void* buffer, size_t bytes) {
  make_resident(buffer, bytes);
  if (!is_agreed_ && is_resumed_) return replay_init(buffer, bytes);
  for (;;) {
    ledger_.await_trial();
    const ssize_t got = read(fuse_fd_, buffer, bytes);
    if (got < static_cast<ssize_t>(sizeof(uapi::InHeader))) return got;
    uapi::InHeader header;
    std::memcpy(&header, buffer, sizeof header);
    if (!is_agreed_ && header.opcode == uapi::kOpInit) {
      init_unique_ = header.unique;
      record_init_request(buffer, static_cast<size_t>(got));
    }
    t_is_request_resent = (header.unique & uapi::kUniqueResent) != 0;
    if (t_is_request_resent && !may_serve_again(header.unique, header.opcode, header.nodeid))
      continue;
    return got;
  }
}

bool Channel::may_serve_again(uint64_t unique, uint32_t opcode, uint64_t node_id) {
  const ResendLedger::Verdict verdict = ledger_.judge(unique, monotonic_ns());
  if (verdict == ResendLedger::Verdict::serve_alone) ledger_.begin_trial(unique);
  if (verdict != ResendLedger::Verdict::poison) return true;
  log_error(cat("request ", unique & ~uapi::kUniqueResent, " (kind ", opcode, ", node ", node_id,
                ") ended its workers; answered with an I/O error"));
  const uapi::OutHeader reply{sizeof(uapi::OutHeader), -EIO, unique};
  // ENOENT: the asker is gone, which ends the request as well.
  if (write(fuse_fd_, &reply, sizeof reply) < 0 && errno != ENOENT)
    log_error(errno_error(errno, "answering a request").message);
  ledger_.forget(unique);
  return false;
}

ssize_t Channel::send_init_reply(iovec* parts, int count) {
  uapi::OutHeader header;
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  if (header.error != 0) return writev(fuse_fd_, parts, count);
  const size_t bytes = total_bytes(parts, count);
  if (is_resumed_) {
    is_agreed_ = true;
    return static_cast<ssize_t>(bytes);
  }
  if (count < 2 || parts[1].iov_len < sizeof(uapi::InitOut) || bytes > sizeof state_.init_reply) {
    errno = EPROTO;  // a kernel older than 7.23 (2013)
    return -1;
  }
  uapi::InitOut reply;
  std::memcpy(&reply, parts[1].iov_base, sizeof reply);
  amend_init_reply(load_request(state_), reply);
  std::memcpy(parts[1].iov_base, &reply, sizeof reply);
  const ssize_t sent = writev(fuse_fd_, parts, count);
  if (sent < 0) return sent;
  size_t at = 0;
  for (int i = 0; i < count; i++) {
    std::memcpy(state_.init_reply + at, parts[i].iov_base, parts[i].iov_len);
    at += parts[i].iov_len;
  }
  state_.init_reply_bytes.store(static_cast<uint32_t>(at));
  is_agreed_ = true;
  return sent;
}

ssize_t Channel::send(iovec* parts, int count) {
  uapi::OutHeader header;
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  if (!is_agreed_ && header.unique == init_unique_ && init_unique_ != 0)
    return send_init_reply(parts, count);
  if (t_backing_id != 0 && header.error == 0 && count == 2 &&
      parts[1].iov_len == sizeof(uapi::OpenOut)) {
    uapi::OpenOut open;
    std::memcpy(&open, parts[1].iov_base, sizeof open);
    open.open_flags = (open.open_flags & ~uapi::kOpenKeepCache) | uapi::kOpenPassthrough;
    open.backing_id = t_backing_id;
    std::memcpy(parts[1].iov_base, &open, sizeof open);
    t_backing_id = 0;
  }
  const ssize_t sent = writev(fuse_fd_, parts, count);
  const int saved = errno;
  if (sent >= 0 && header.unique != 0) state_.answered.fetch_add(1, std::memory_order_relaxed);
  ledger_.forget(header.unique);
  errno = saved;
  return sent;
}

Status Channel::ask_resend() {
  const uapi::OutHeader notice{sizeof(uapi::OutHeader), uapi::kNotifyResend, 0};
  if (write(fuse_fd_, &notice, sizeof notice) < 0)
    return errno_error(errno, "asking the kernel to send requests again");
  return {};
}

void Channel::announce_ready() {
  state_.ready_generation.store(state_.generation.load());
  const pid_t keeper = state_.keeper_pid.load();
  // A keeper that died takes its worker along (PR_SET_PDEATHSIG), so the id is not someone else's.
  if (keeper > 0 && keeper == getppid()) kill(keeper, SIGUSR1);
}

void Channel::announce_ending(WorkerEnding ending) {
  state_.ending.store(ending);
}

}  // namespace cake
