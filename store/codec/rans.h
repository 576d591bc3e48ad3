// The order-0 rANS coder of byte strings: tables, states and steps.
//
// Byte i of a string belongs to lane i mod 128; each lane has a state of its own and all share one
// stream.  Frequencies are out of 256, states lie in [256, 65536), renormalisation is by single
// bytes, so a step of one lane reads at most one byte.  Which slot belongs to which entry follows
// the alias method: 256 slots in 16, 32 or 64 equal buckets, each shared by at most two entries. So
// a look-up is a byte permutation of one to four registers, not a gather (man/cakefs-store.5 has
// the format to the byte).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "store/base/bytes.h"

namespace cake {

constexpr size_t kRansLanes = 128;
constexpr unsigned kRansSlots = 256;  // also the lower bound of a state
constexpr size_t kRansEntries = 64;
// A table serves this many bytes, so that it follows the weights.
constexpr size_t kRansSegment = 32 * kKiB;
constexpr unsigned kNoEscape = 255;
// A value with a smaller share costs less as an escape than in a slot of its own (measured: 0.12 to
// 0.8 slots on BF16, F16, F32, FP8 and int8; 0.5 is best or within 0.02 % of it everywhere).
constexpr double kRansWorthASlot = 0.5 / kRansSlots;

// One state a lane, as two strings of bytes: vector code then needs no unpacking to look slots up.
struct RansStates {
  std::array<uint8_t, kRansLanes> low;
  std::array<uint8_t, kRansLanes> high;

  static RansStates initial();  // every lane 256
  bool operator==(const RansStates&) const = default;
};

// What is known of a segment: its entries with their frequencies, and which one is the escape.
struct RansTable {
  unsigned entries = 0;  // 2 to 64, the escape included
  unsigned escape = kNoEscape;
  std::array<uint8_t, kRansEntries> value{};  // the byte that an entry stands for
  std::array<uint8_t, kRansEntries> freq{};   // 1 to 255, sum 256; 0 beyond `entries`

  // Of bucket b (there are 2^bucket_bits): positions up to last[b] (-1: none) belong to entry b,
  // with the rank equal to the position; later ones to entry alias[b], with the rank position +
  // shift[b] (modulo 256).
  unsigned bucket_bits = 0;
  std::array<int8_t, kRansEntries> last{};
  std::array<uint8_t, kRansEntries> alias{};
  std::array<uint8_t, kRansEntries> shift{};

  // Fills in the buckets.  False when entries and freq are not as stated above.
  bool assign_slots();

  struct Slot {
    uint8_t entry, rank;
  };
  Slot slot(unsigned index) const;
};

// The same for the writer.
struct RansEncodeTable {
  explicit RansEncodeTable(const RansTable& table);
  RansEncodeTable() = default;

  unsigned entries = 0;
  std::array<uint8_t, kRansEntries> freq{};
  std::array<uint8_t, kRansEntries> start{};  // of an entry's slots in `slots`
  // floor(65536 / freq), at most 65535, low and high bytes: a quotient by multiplication is then at
  // most one too small.
  std::array<uint8_t, kRansEntries> reciprocal_low{};
  std::array<uint8_t, kRansEntries> reciprocal_high{};
  std::array<uint8_t, kRansSlots> slots{};  // by start[entry] + rank
};

// Where the values that a map of 256 does not make the escape lie: all in [first, first + 63), if
// that fits.  Vectors then look them up in 64 bytes, the last of which is the escape.
struct EntryWindow {
  EntryWindow(const uint8_t* map, unsigned escape);

  bool fits = false;
  uint8_t first = 0;
  std::array<uint8_t, kRansEntries> entries{};
};

// Frequencies of at least 1 and at most 255 with sum 256, close to cheapest for these shares (sum
// 1, 2 to 64 of them).
void normalise_shares(const double* shares, unsigned count, uint8_t* freq);

}  // namespace cake
