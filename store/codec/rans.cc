#include "store/codec/rans.h"

#include <algorithm>
#include <cmath>

namespace cake {

RansStates RansStates::initial() {
  RansStates states;
  states.low.fill(0);
  states.high.fill(1);
  return states;
}

bool RansTable::assign_slots() {
  if (entries < 2 || entries > kRansEntries) return false;
  unsigned sum = 0;
  for (unsigned i = 0; i < entries; i++) {
    if (freq[i] == 0) return false;
    sum += freq[i];
  }
  if (sum != kRansSlots) return false;
  bucket_bits = entries <= 16 ? 4 : entries <= 32 ? 5 : 6;
  const unsigned buckets = 1U << bucket_bits;
  const unsigned width = kRansSlots / buckets;

  // Vose's construction with two stacks: an entry with less than a bucket of slots left closes its
  // bucket, and what is free there goes to an entry with more, from its highest ranks down.
  std::array<unsigned, kRansEntries> left{};
  std::array<uint8_t, kRansEntries> few, many;
  unsigned few_count = 0, many_count = 0;
  for (unsigned i = 0; i < buckets; i++) {
    left[i] = i < entries ? freq[i] : 0;
    alias[i] = static_cast<uint8_t>(i);
    shift[i] = 0;
    last[i] = static_cast<int8_t>(width - 1);
    if (left[i] < width) few[few_count++] = static_cast<uint8_t>(i);
    if (left[i] > width) many[many_count++] = static_cast<uint8_t>(i);
  }
  while (few_count > 0) {
    const unsigned taker = few[--few_count];
    const unsigned giver = many[many_count - 1];
    left[giver] -= width - left[taker];
    last[taker] = static_cast<int8_t>(static_cast<int>(left[taker]) - 1);
    alias[taker] = static_cast<uint8_t>(giver);
    shift[taker] = static_cast<uint8_t>(left[giver] - left[taker]);
    if (left[giver] > width) continue;
    many_count--;
    if (left[giver] < width) few[few_count++] = static_cast<uint8_t>(giver);
  }
  return true;
}

RansTable::Slot RansTable::slot(unsigned index) const {
  const unsigned width_bits = 8 - bucket_bits;
  const unsigned bucket = index >> width_bits;
  const unsigned position = index & ((1U << width_bits) - 1);
  if (static_cast<int>(position) <= last[bucket])
    return {static_cast<uint8_t>(bucket), static_cast<uint8_t>(position)};
  return {alias[bucket], static_cast<uint8_t>(position + shift[bucket])};
}

RansEncodeTable::RansEncodeTable(const RansTable& table)
    : entries(table.entries), freq(table.freq) {
  unsigned next = 0;
  for (unsigned i = 0; i < entries; i++) {
    start[i] = static_cast<uint8_t>(next);
    next += freq[i];
    const unsigned reciprocal = std::min(65535U, 65536U / freq[i]);
    reciprocal_low[i] = static_cast<uint8_t>(reciprocal);
    reciprocal_high[i] = static_cast<uint8_t>(reciprocal >> 8);
  }
  // As RansTable::slot tells, bucket by bucket.
  const unsigned width = kRansSlots >> table.bucket_bits;
  for (unsigned bucket = 0; bucket < 1U << table.bucket_bits; bucket++) {
    const unsigned first = bucket * width;
    const auto own = static_cast<unsigned>(table.last[bucket] + 1);
    const unsigned alias = start[table.alias[bucket]] + table.shift[bucket];
    for (unsigned i = 0; i < own; i++) slots[start[bucket] + i] = static_cast<uint8_t>(first + i);
    for (unsigned i = own; i < width; i++)
      slots[(alias + i) % kRansSlots] = static_cast<uint8_t>(first + i);
  }
}

EntryWindow::EntryWindow(const uint8_t* map, unsigned escape) {
  unsigned begin = 0, last = 255;
  while (begin < 255 && map[begin] == escape) begin++;
  while (last > begin && map[last] == escape) last--;
  fits = last - begin < kRansEntries - 1;
  first = static_cast<uint8_t>(begin);
  entries.fill(static_cast<uint8_t>(escape));
  for (unsigned i = 0; i < kRansEntries - 1 && begin + i < 256; i++) entries[i] = map[begin + i];
}

void normalise_shares(const double* shares, unsigned count, uint8_t* freq) {
  static const std::array<double, kRansSlots + 1> log2_of = [] {
    std::array<double, kRansSlots + 1> logs{};
    for (size_t i = 1; i < logs.size(); i++) logs[i] = std::log2(static_cast<double>(i));
    return logs;
  }();
  int sum = 0;
  for (unsigned i = 0; i < count; i++) {
    freq[i] = static_cast<uint8_t>(std::clamp(shares[i] * kRansSlots + 0.5, 1.0, 255.0));
    sum += freq[i];
  }
  // One at a time where it costs least, or gains most.
  const int total = kRansSlots;
  while (sum != total) {
    const int step = sum < total ? 1 : -1;
    unsigned best = count;
    double best_cost = 0;
    for (unsigned i = 0; i < count; i++) {
      const int changed = freq[i] + step;
      if (changed < 1 || changed > 255) continue;
      const double cost = shares[i] * (log2_of[freq[i]] - log2_of[static_cast<size_t>(changed)]);
      if (best == count || cost < best_cost) best = i, best_cost = cost;
    }
    freq[best] = static_cast<uint8_t>(freq[best] + step);
    sum += step;
  }
}

}  // namespace cake
