// A worker's end of the kernel connection: the keeper's descriptor, seen through what every worker
// of the mount must agree on.
//
// libfuse reads requests and writes replies through here.  It never notices that its mount is older
// than itself: a resumed worker is given the INIT request that the first one got, its reply is
// swallowed, and then the kernel is asked to send the unanswered requests again.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "fs/keeper_state.h"
#include "fs/open_table.h"
#include "fs/resend_ledger.h"
#include "store/base/result.h"

namespace cake {

// Thread-safe after the INIT request was answered; until then confined to the main thread.
class Channel {
 public:
  // Takes the descriptors that the keeper passed on.  Call once, before other threads exist.
  // Errors: invalid (not started by a keeper), unsupported (state of another version), io.
  static Result<std::unique_ptr<Channel>> adopt();
  // For tests: any descriptor with the kernel's manners.  Both are left open by the destructor.
  Channel(int fuse_fd, KeeperState& state);
  ~Channel();

  int fd() const { return fuse_fd_; }
  KeeperState& state() const { return state_; }
  OpenTable& opens() { return opens_; }

  // Another worker served this mount before.
  bool is_resumed() const { return is_resumed_; }
  // What kernel and mount agreed on; false before INIT was answered.
  bool has_resend() const;
  bool has_passthrough() const;

  // The request that the calling FUSE thread handles was sent before, to a worker that is gone.
  static bool is_request_resent();

  // Passthrough.  An id stays registered in the kernel when the worker ends; see OpenTable.
  // denied without CAP_SYS_ADMIN, unsupported when not agreed.
  Result<int32_t> register_backing(int file_fd);
  Status unregister_backing(int32_t backing_id);
  // The next reply to OPEN that the calling thread writes says passthrough to this backing id.
  // (libfuse 3.14 has no field for it.)
  static void pass_next_open_through(int32_t backing_id);

  // For run_worker.
  ssize_t receive(void* buffer, size_t bytes);
  ssize_t send(iovec* parts, int count);
  bool is_agreed() const { return is_agreed_; }
  Status ask_resend();
  void announce_ready();
  void announce_ending(WorkerEnding ending);

 private:
  Channel(KeeperMemory memory, int fuse_fd);
  ssize_t replay_init(void* buffer, size_t bytes);
  void record_init_request(const void* request, size_t bytes);
  ssize_t send_init_reply(iovec* parts, int count);
  bool may_serve_again(uint64_t unique, uint32_t opcode, uint64_t node_id);

  // Constant after construction.
  std::unique_ptr<KeeperMemory> memory_;  // none in tests
  KeeperState& state_;
  const int fuse_fd_;
  const bool is_resumed_;

  // Confined to the main thread until INIT is answered, constant afterwards.
  uint64_t init_unique_ = 0;
  bool is_agreed_ = false;

  OpenTable opens_;      // synchronises itself
  ResendLedger ledger_;  // synchronises itself
};

}  // namespace cake
