#include "fs/open_table.h"

namespace cake {
namespace {

// One word, so that a worker's death never leaves half a record: count, backing id (31 bits), mode.
uint64_t pack(const OpenRecord& record) {
  return uint64_t{record.count} << 32 |
         (static_cast<uint64_t>(record.backing_id) & 0x7fffffff) << 1 |
         static_cast<uint64_t>(record.mode);
}

OpenRecord unpack(uint64_t word) {
  OpenRecord record;
  record.count = static_cast<uint32_t>(word >> 32);
  record.backing_id = static_cast<int32_t>((word >> 1) & 0x7fffffff);
  record.mode = static_cast<OpenMode>(word & 1);
  return record;
}

}  // namespace

OpenTable::OpenTable(KeeperState& state) : state_(state) {
  MutexLock lock(mutex_);
  for (uint32_t i = kOpenSlots; i-- > 0;) {
    const uint64_t node_id = state_.opens[i].node_id.load();
    if (node_id == 0 || unpack(state_.opens[i].state.load()).count == 0)
      free_.push_back(i);
    else
      slots_.emplace(node_id, i);
  }
}

std::optional<OpenRecord> OpenTable::find(uint64_t node_id) const {
  MutexLock lock(mutex_);
  const auto at = slots_.find(node_id);
  if (at == slots_.end()) return std::nullopt;
  return unpack(state_.opens[at->second].state.load());
}

OpenRecord OpenTable::add(uint64_t node_id, OpenMode wanted, int32_t backing_id) {
  MutexLock lock(mutex_);
  if (const auto at = slots_.find(node_id); at != slots_.end()) {
    OpenSlot& slot = state_.opens[at->second];
    OpenRecord record = unpack(slot.state.load());
    if (record.count != UINT32_MAX) record.count++;
    slot.state.store(pack(record));
    return record;
  }
  OpenRecord record{1, wanted, wanted == OpenMode::passthrough ? backing_id : 0};
  if (state_.has_overflowed != 0) record = {1, OpenMode::cached, 0};
  if (free_.empty()) {
    // Its mode cannot be remembered, so from here on there is only one mode for what is not.
    state_.has_overflowed = 1;
    return {1, OpenMode::cached, 0};
  }
  OpenSlot& slot = state_.opens[free_.back()];
  // A slot with a stale name and count 0 is free: the count makes it true, so it comes last.
  slot.state.store(0);
  slot.node_id.store(node_id);
  slot.state.store(pack(record));
  slots_.emplace(node_id, free_.back());
  free_.pop_back();
  return record;
}

std::optional<OpenRecord> OpenTable::remove(uint64_t node_id, bool is_resent) {
  if (is_resent) return std::nullopt;
  MutexLock lock(mutex_);
  const auto at = slots_.find(node_id);
  if (at == slots_.end()) return std::nullopt;
  OpenSlot& slot = state_.opens[at->second];
  OpenRecord record = unpack(slot.state.load());
  if (record.count > 1) {
    record.count--;
    slot.state.store(pack(record));
    return std::nullopt;
  }
  slot.state.store(0);
  slot.node_id.store(0);
  free_.push_back(at->second);
  slots_.erase(at);
  return record;
}

size_t OpenTable::size() const {
  MutexLock lock(mutex_);
  return slots_.size();
}

std::vector<uint64_t> OpenTable::nodes() const {
  std::vector<uint64_t> nodes;
  MutexLock lock(mutex_);
  for (const auto& [node_id, slot] : slots_) nodes.push_back(node_id);
  return nodes;
}

bool OpenTable::may_pass_through() const {
  MutexLock lock(mutex_);
  return state_.has_overflowed == 0;
}

}  // namespace cake
