#include "store/space.h"

#include <algorithm>
#include <array>
#include <limits>
#include <thread>
#include <utility>

namespace cake {

namespace {

constexpr uint64_t kMinStep = kMiB;
constexpr uint64_t kMaxStep = 64 * kMiB;
// Five writers with a step each hold 4 % of the store.
constexpr uint64_t kStepsInLimit = 128;
// The share of the limit that is left to the index.
constexpr uint64_t kReserveShare = 64;
constexpr Millis kLockPoll{2};

int64_t difference(uint64_t a, uint64_t b) {
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return a >= b ? static_cast<int64_t>(std::min(a - b, kMost))
                : -static_cast<int64_t>(std::min(b - a, kMost));
}

Result<uint64_t> blocks_below(const std::string& folder) {
  uint64_t sum = 0;
  for (const std::string& name : CAKE_TRY(list_directory(folder))) {
    const auto bytes = path_disk_bytes(cat(folder, "/", name));
    if (!bytes && bytes.error().code == Errc::not_found) continue;  // removed just now
    sum += CAKE_TRY(Result<uint64_t>(bytes));
  }
  return sum;
}

}  // namespace

Space::Space(std::string directory, SpaceLimits limits)
    : directory_(std::move(directory)),
      limits_(limits),
      step_bytes_(std::clamp(limits.cache_bytes / kStepsInLimit, kMinStep, kMaxStep)) {}

Result<uint64_t> Space::used_bytes() const {
  uint64_t sum = 0;
  // The folders of a store; their own blocks are counted with the files of the one above.
  for (const std::string_view folder : {"", "/packs", "/leases"})
    sum += CAKE_TRY(blocks_below(cat(directory_, folder)));
  return sum;
}

Result<int64_t> Space::room() const {
  int64_t room = std::numeric_limits<int64_t>::max();
  if (limits_.cache_bytes != UINT64_MAX)
    room = difference(limits_.cache_bytes - limits_.cache_bytes / kReserveShare,
                      CAKE_TRY(used_bytes()));
  if (limits_.min_free_bytes != 0)
    room = std::min(
        room, difference(CAKE_TRY(disk_space(directory_)).free_bytes, limits_.min_free_bytes));
  return room;
}

Result<File> Space::lock(Deadline deadline) const {
  // An open description of its own: threads of one process exclude each other too.
  File file = CAKE_TRY(File::open(directory_ + "/space.lock", File::Mode::create));
  while (!CAKE_TRY(file.try_lock({}, true))) {
    CAKE_TRY(deadline.check());
    // The kernel has no timed wait for such a lock; holders take milliseconds.
    std::this_thread::sleep_for(kLockPoll);
  }
  return file;
}

}  // namespace cake
