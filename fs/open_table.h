// Who has what open, kept across workers: per content its open count, its mode and backing id.
//
// The kernel keeps an inode in one mode while it is open, cached or passthrough, and refuses an
// open in the other.  A new worker therefore has to know what the last one answered.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "fs/keeper_state.h"
#include "store/base/mutex.h"

namespace cake {

enum class OpenMode : uint8_t { cached = 0, passthrough = 1 };

struct OpenRecord {
  uint32_t count = 0;
  OpenMode mode = OpenMode::cached;
  int32_t backing_id = 0;  // of passthrough
};

// A worker's view of the table; one a process.  Counts never end too low: when a worker dies
// between counting and answering, the request comes again, so an OPEN may count twice, and a
// RELEASE that was sent again does not count.  A count that stays too high only keeps the mode.
// Thread-safe.
class OpenTable {
 public:
  // `state` outlives the table.
  explicit OpenTable(KeeperState& state);

  // nullopt: not open.
  std::optional<OpenRecord> find(uint64_t node_id) const EXCLUDES(mutex_);

  // Counts an open *before* it is answered, and says what to answer with: the mode that the content
  // is in already, else the wanted one; `cached` when the table is or was full.
  OpenRecord add(uint64_t node_id, OpenMode wanted, int32_t backing_id) EXCLUDES(mutex_);

  // Counts a release; `is_resent` is Channel::is_request_resent().  Returns the record as it was
  // when this was the last one: its backing id may then be closed.
  std::optional<OpenRecord> remove(uint64_t node_id, bool is_resent) EXCLUDES(mutex_);

  size_t size() const EXCLUDES(mutex_);
  // What is open.
  std::vector<uint64_t> nodes() const EXCLUDES(mutex_);
  bool may_pass_through() const EXCLUDES(mutex_);

 private:
  KeeperState& state_;  // slots are written under mutex_ only

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  std::unordered_map<uint64_t, uint32_t> slots_ GUARDED_BY(mutex_);  // node id to slot
  std::vector<uint32_t> free_ GUARDED_BY(mutex_);
};

}  // namespace cake
