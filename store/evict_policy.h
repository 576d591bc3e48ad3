// Which chunks go when room is needed.  Pure: no I/O, no clock.
//
// Two queues, as in 2Q (Johnson and Shasha, VLDB 1994).  A chunk that was read in one go since it
// came is on *probation* (uses 0); one that was read again later, or came back soon after it was
// evicted, is *proven* (uses > 0).  Probation gives first, oldest first, down to its share of the
// store; then the proven do, least recently used first.  So one pass over a model larger than the
// store flushes what other passes left, and not the models that are read every day.
//
// How large that share is, the ghosts tell (as in ARC; Megiddo and Modha, FAST 2003): digests of
// what was evicted lately.  Probation's coming back in numbers means that it is too small, the
// proven's that it is too large.  tests/bench/eviction_bench.cc compares with LRU.
#pragma once

#include <cstdint>
#include <map>

namespace cake {

// Fed every evictable chunk twice: the first time to count, the second to ask.  Memory goes with
// the number of different seconds, not of chunks.  Thread-compatible.
class EvictionPlan {
 public:
  // `now`: later times are those of a wrong clock, and count as now.  `share`: of all that can be
  // evicted, what probation keeps while the proven still have something to give.
  EvictionPlan(int64_t now, double share) : now_(now), share_(share) {}

  // First pass.
  void count(unsigned uses, int64_t last_access, uint64_t bytes);
  // Between the passes.
  void decide(uint64_t bytes_to_free);
  // Second pass: whether this one goes.
  bool takes(unsigned uses, int64_t last_access, uint64_t bytes);

  uint64_t counted_bytes() const { return probation_.bytes + proven_.bytes; }

 private:
  struct Queue {
    std::map<int64_t, uint64_t> bytes_by_time;
    uint64_t bytes = 0;
    // All before go, and `rest` bytes of that very second.
    int64_t before = INT64_MIN;
    uint64_t rest = 0;

    void set_cut(uint64_t bytes_to_free);
  };

  int64_t now_;
  double share_;
  Queue probation_, proven_;
};

// Probation's share, from what has happened since it was last asked.
struct GhostCounts {
  uint64_t probation = 0, proven = 0;            // ghosts there are, by what the chunks were
  uint64_t probation_back = 0, proven_back = 0;  // of these, chunks that are here again
};
constexpr double kFirstShare = 0.5;
double adapted_share(double share, const GhostCounts& ghosts, uint64_t chunks);

}  // namespace cake
