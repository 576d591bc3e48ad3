// Hit ratios of the store's eviction and of exact LRU over generated traces.  Argument: SCALE
// (default 1), which multiplies cache and traces.
//
// Accesses are of chunks, a model at a time, as loaders read: in order, once a pass.  The store's
// policy runs as in the store: rows with whole seconds, evicted in batches of a fortieth; LRU runs
// both ideally, chunk by chunk, and in such batches, which is what the store would have.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <list>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/evict_policy.h"
#include "store/index_upkeep.h"

namespace {

using namespace cake;

// One pass over chunks [first, first + count).
struct Pass {
  uint64_t first = 0, count = 0;
};
using Trace = std::vector<Pass>;

// --- The two caches ---

class Lru {
 public:
  explicit Lru(uint64_t capacity) : capacity_(capacity) {}
  bool access(uint64_t chunk) {
    const auto found = where_.find(chunk);
    if (found != where_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return true;
    }
    order_.push_front(chunk);
    where_[chunk] = order_.begin();
    if (where_.size() > capacity_) {
      where_.erase(order_.back());
      order_.pop_back();
    }
    return false;
  }

 private:
  const uint64_t capacity_;
  std::list<uint64_t> order_;
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> where_;
};

class Store {
 public:
  Store(uint64_t capacity, bool is_lru) : capacity_(capacity), is_lru_(is_lru) {}
  // `now` moves on by more than a use's seconds from pass to pass.
  bool access(uint64_t chunk, int64_t now) {
    const auto found = rows_.find(chunk);
    if (found != rows_.end()) {
      Row& row = found->second;
      if (row.last_access <= now - IndexUpkeep::kUseSeconds) {
        row.last_access = now;
        if (!is_lru_) row.uses = std::min(row.uses + 1, IndexUpkeep::kMaxUses);
      }
      return true;
    }
    if (rows_.size() >= capacity_) evict(now);
    rows_[chunk] = {now, !is_lru_ && ghosts_.contains(chunk) ? 1U : 0U};
    return false;
  }

 private:
  struct Row {
    int64_t last_access = 0;
    unsigned uses = 0;
  };
  void evict(int64_t now) {
    if (!is_lru_) learn();
    EvictionPlan plan(now, share_);
    for (const auto& [chunk, row] : rows_) plan.count(row.uses, row.last_access, 1);
    plan.decide(std::max<uint64_t>(1, capacity_ / 40));
    for (auto at = rows_.begin(); at != rows_.end();) {
      if (!plan.takes(at->second.uses, at->second.last_access, 1)) {
        ++at;
        continue;
      }
      ghosts_[at->first] = at->second.uses > 0;
      ghost_order_.push_back(at->first);
      at = rows_.erase(at);
    }
    while (ghosts_.size() > capacity_ && !ghost_order_.empty()) {
      ghosts_.erase(ghost_order_.front());
      ghost_order_.pop_front();
    }
  }

  void learn() {
    GhostCounts counts;
    std::vector<uint64_t> back;
    for (const auto& [chunk, is_proven] : ghosts_) {
      (is_proven ? counts.proven : counts.probation)++;
      if (!rows_.contains(chunk)) continue;
      (is_proven ? counts.proven_back : counts.probation_back)++;
      back.push_back(chunk);
    }
    for (const uint64_t chunk : back) ghosts_.erase(chunk);
    share_ = adapted_share(share_, counts, rows_.size());
  }

  const uint64_t capacity_;
  const bool is_lru_;
  double share_ = kFirstShare;
  std::unordered_map<uint64_t, Row> rows_;
  std::unordered_map<uint64_t, bool> ghosts_;
  std::list<uint64_t> ghost_order_;
};

// --- Traces: models of `size` chunks, numbered ---

Pass model(uint64_t number, uint64_t size) {
  return {number * 100'000, size};
}

// Popularity by rank, as downloads from a hub are.
Trace zipf(uint64_t cache, std::mt19937_64& random) {
  const uint64_t size = cache / 20;
  std::vector<double> weights;
  for (int i = 0; i < 100; i++) weights.push_back(1.0 / (i + 1));
  std::discrete_distribution<uint64_t> rank(weights.begin(), weights.end());
  Trace trace;
  for (int i = 0; i < 1500; i++) trace.push_back(model(rank(random), size));
  return trace;
}

// Small hot models, and now and then one pass over something larger than the store.
Trace scan_mixed(uint64_t cache, std::mt19937_64& random) {
  const uint64_t size = cache / 16;
  std::uniform_int_distribution<uint64_t> hot(0, 11);
  Trace trace;
  for (int i = 0; i < 600; i++) {
    trace.push_back(model(hot(random), size));
    if (i % 8 == 7) trace.push_back({1'000'000'000 + uint64_t(i) * 1'000'000, cache * 5 / 4});
  }
  return trace;
}

// The same models in turn, a little more than fits.
Trace loop(uint64_t cache, std::mt19937_64&) {
  Trace trace;
  for (int i = 0; i < 600; i++) trace.push_back(model(static_cast<uint64_t>(i % 24), cache / 20));
  return trace;
}

// Models come, are used for a while, and are replaced by newer ones.
Trace rolling(uint64_t cache, std::mt19937_64& random) {
  std::uniform_int_distribution<uint64_t> age(0, 11);
  Trace trace;
  for (uint64_t i = 0; i < 1500; i++) trace.push_back(model(12 + i / 6 - age(random), cache / 16));
  return trace;
}

// Rolling, with more models in use than fit, each as likely as the others until it goes: here
// recency is all there is to know.  Shown, not judged.
Trace rolling_wide(uint64_t cache, std::mt19937_64& random) {
  std::uniform_int_distribution<uint64_t> age(0, 23);
  Trace trace;
  for (uint64_t i = 0; i < 1500; i++) trace.push_back(model(24 + i / 6 - age(random), cache / 16));
  return trace;
}

// Experts: parts of one large model, some far more often than others.
Trace experts(uint64_t cache, std::mt19937_64& random) {
  std::vector<double> weights;
  for (int i = 0; i < 256; i++) weights.push_back(1.0 / (i + 4));
  std::discrete_distribution<uint64_t> expert(weights.begin(), weights.end());
  Trace trace;
  for (int i = 0; i < 6000; i++) trace.push_back({expert(random) * (cache / 64), cache / 64});
  return trace;
}

struct Named {
  const char* name;
  std::function<Trace(uint64_t, std::mt19937_64&)> make;
};

}  // namespace

int main(int argc, char** argv) {
  const uint64_t scale = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const uint64_t cache = 2'000 * std::max<uint64_t>(1, scale);
  const std::vector<Named> traces = {
      {"zipf", zipf},       {"scan-mixed", scan_mixed},     {"loop", loop},
      {"rolling", rolling}, {"rolling-wide", rolling_wide}, {"experts", experts}};
  bool is_good = true;
  std::printf("%-14s %10s %10s %10s %8s\n", "trace", "ideal LRU", "LRU", "store", "to LRU");
  for (const Named& named : traces) {
    std::mt19937_64 random(42);
    const Trace trace = named.make(cache, random);
    Lru lru(cache);
    Store batched(cache, true), store(cache, false);
    uint64_t accesses = 0, lru_hits = 0, batched_hits = 0, store_hits = 0;
    int64_t now = 1'000'000;
    for (const Pass& pass : trace) {
      now += 2 * IndexUpkeep::kUseSeconds;
      for (uint64_t i = 0; i < pass.count; i++) {
        if (i % 100 == 99) now++;
        accesses++;
        if (lru.access(pass.first + i)) lru_hits++;
        if (batched.access(pass.first + i, now)) batched_hits++;
        if (store.access(pass.first + i, now)) store_hits++;
      }
    }
    const auto ratio = [&](uint64_t hits) {
      return static_cast<double>(hits) / static_cast<double>(accesses);
    };
    const double ideal = ratio(lru_hits), lru_ratio = ratio(batched_hits), ours = ratio(store_hits);
    std::printf("%-14s %9.2f%% %9.2f%% %9.2f%% %8.3f\n", named.name, 100 * ideal, 100 * lru_ratio,
                100 * ours, lru_ratio > 0 ? ours / lru_ratio : 0);
    if (std::string(named.name) == "rolling-wide") continue;
    is_good = is_good && ours >= lru_ratio;
    if (std::string(named.name) == "scan-mixed") is_good = is_good && ours >= 1.2 * lru_ratio;
  }
  std::printf("%s\n",
              is_good ? "at least LRU on every trace that is judged" : "WORSE THAN LRU SOMEWHERE");
  return is_good ? 0 : 1;
}
