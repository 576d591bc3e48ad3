// What a mount knows that no process of it may take into its grave: the memory shared by the keeper
// and its workers, one memfd a mount.
//
// The keeper creates it and hands it to every worker and, at an upgrade, to the next program.  So
// its first kKeeperHeaderBytes never change meaning; what follows belongs to `version`, and a
// program that finds another version there starts those tables afresh (see adopt_keeper_state).
//
// A worker may be killed between any two instructions.  Hence: every field that a worker writes
// while serving is one atomic word, whose old and new value are both true.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "store/base/result.h"

namespace cake {

constexpr uint64_t kKeeperMagic = 0x7065'656b'656b'6163;  // "cakekeep"
constexpr uint32_t kKeeperStateVersion = 1;
constexpr size_t kKeeperHeaderBytes = 32768;

// Contents open at once that are remembered; 1 MiB.  Beyond, passthrough is no longer given.
constexpr size_t kOpenSlots = 65536;
// Requests sent again that are counted at once; many times max_background's default.
constexpr size_t kResentSlots = 16384;

// How the last worker ended.  `unknown` in a worker that is gone means that it crashed.
enum class WorkerEnding : uint32_t { unknown = 0, drained = 1, unmounted = 2 };

// Why the requests that come again come again; see resend_ledger.h.
enum class LastDeath : uint32_t {
  planned = 0,
  killed = 1,   // SIGKILL: an operator, or no memory
  crashed = 2,  // by its own doing
};

struct OpenSlot {
  std::atomic<uint64_t> node_id;  // 0: free
  std::atomic<uint64_t> state;    // see open_table.cc
};

struct ResentSlot {
  std::atomic<uint64_t> unique;        // without the top bit; 0: free
  std::atomic<uint64_t> delivered_ns;  // monotonic, when last handed to a worker
  std::atomic<uint64_t> times;         // deaths that it is suspected of
};

// Page-aligned, as a mapping is.
struct alignas(4096) KeeperHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t has_overflowed;  // OpenTable: an open went unrecorded

  std::atomic<int32_t> keeper_pid;
  std::atomic<int32_t> worker_pid;
  std::atomic<uint32_t> generation;        // of the current worker, from 1
  std::atomic<uint32_t> ready_generation;  // the last worker that served
  std::atomic<WorkerEnding> ending;        // written by the worker as its last act
  std::atomic<LastDeath> last_death;       // of a worker that served
  std::atomic<uint32_t> is_desperate;      // few more deaths end the mount
  std::atomic<uint64_t> died_ns;           // monotonic, when
  std::atomic<uint64_t> on_trial;          // the request that is served alone, without the top bit
  std::atomic<uint64_t> trial_ns;          // monotonic, since when
  std::atomic<uint32_t> upgrades;          // programs that took this mount over

  // Constant after the keeper has started.
  uint32_t is_background;  // stdio is given up once the mount is ready
  uint32_t device_major;
  uint32_t device_minor;
  uint32_t read_ahead_kb;
  uint32_t max_deaths;
  int32_t oom_score_adj;  // what the keeper was started with, and workers get
  char source[4096];
  char store[4096];
  char mount_point[4096];
  char record_path[4096];
  char program[4096];

  // The INIT request and the reply it got: what kernel and mount agreed on, for ever.
  std::atomic<uint32_t> init_request_bytes;
  std::atomic<uint32_t> init_reply_bytes;
  std::byte init_request[1024];
  std::byte init_reply[1024];

  std::atomic<uint64_t> answered;  // requests answered: progress

  // Constant after the keeper has started; 0 until then, also of a program that did not know it.
  uint64_t kill_patience_ns;
};
static_assert(sizeof(KeeperHeader) <= kKeeperHeaderBytes);
static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<WorkerEnding>::is_always_lock_free);
static_assert(std::atomic<LastDeath>::is_always_lock_free);

struct KeeperState : KeeperHeader {
  std::byte reserved[kKeeperHeaderBytes - sizeof(KeeperHeader)];
  alignas(4096) OpenSlot opens[kOpenSlots];  // at kKeeperHeaderBytes
  ResentSlot resent[kResentSlots];
};

// Monotonic, comparable between processes of this machine.
uint64_t monotonic_ns();

// Owns a mapping of the state and its memfd.  The pointer stays valid for the object's life.
class KeeperMemory {
 public:
  static Result<KeeperMemory> create();
  // Maps a descriptor that was inherited.  With `may_convert` (the keeper of a new program), tables
  // of another version are cleared; without (a worker), another version is an error.
  static Result<KeeperMemory> adopt(int fd, bool may_convert);

  KeeperMemory(KeeperMemory&& other) noexcept;
  KeeperMemory& operator=(KeeperMemory&&) = delete;
  ~KeeperMemory();

  int fd() const { return fd_; }
  KeeperState* operator->() const { return state_; }
  KeeperState& operator*() const { return *state_; }

 private:
  KeeperMemory(int fd, KeeperState* state) : fd_(fd), state_(state) {}
  int fd_;
  KeeperState* state_;
};

// What names the two inherited descriptors to a worker or to the next program: "FUSE,MEMFD".
constexpr const char* kKeeperVariable = "CAKE_KEEPER";
struct KeeperDescriptors {
  int fuse = -1;
  int memory = -1;
};
// invalid when the variable is absent or malformed.
Result<KeeperDescriptors> inherited_descriptors();

}  // namespace cake
