#include "store/codec/kernels_check.h"

#include <algorithm>

#include "store/base/result.h"
#include "store/codec/packing.h"

namespace cake {

namespace {

using Bytes = std::vector<uint8_t>;

// A tail only, whole groups only (a tail would hide what is written behind them), and both.
constexpr size_t kMost = 2 * kGroup7 + 3 * kRansLanes + 91;
constexpr size_t kCounts[] = {77, 2 * kGroup7, kMost};
// Room for a vector behind everything that is written, which must stay as it is.
constexpr size_t kMargin = 64;
constexpr uint8_t kUntouched = 0xa5;

// A linear congruential generator (Knuth's): the same numbers on every machine.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed) {}
  uint8_t byte() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<uint8_t>(state_ >> 56);
  }
  Bytes bytes(size_t count) {
    Bytes made(count);
    for (uint8_t& byte : made) byte = this->byte();
    return made;
  }

 private:
  uint64_t state_;
};

// All that one set of kernels answers for a function, one thing behind the other.
class Answers {
 public:
  // Room for what a kernel is to write; valid until the next call.
  uint8_t* room(size_t size) {
    const size_t at = all_.size();
    all_.resize(at + size + kMargin, kUntouched);
    return all_.data() + at;
  }
  void add(uint64_t number) {
    for (int i = 0; i < 8; i++) all_.push_back(static_cast<uint8_t>(number >> 8 * i));
  }
  void add(const RansStates& states) {
    all_.insert(all_.end(), states.low.begin(), states.low.end());
    all_.insert(all_.end(), states.high.begin(), states.high.end());
  }
  void add(const uint8_t* begin, const uint8_t* end) { all_.insert(all_.end(), begin, end); }
  bool operator==(const Answers&) const = default;

 private:
  Bytes all_;
};

// Places of planes that are written together.
struct Room {
  Room(Answers& answers, size_t first, size_t second, size_t third)
      : a(answers.room(first + second + third + 2 * kMargin)),
        b(a + first + kMargin),
        c(b + second + kMargin) {}
  uint8_t *a, *b, *c;
};

// --- rans ---

// A table of so many entries: shares are even, or each is half of the one before.
RansTable make_table(unsigned entries, bool is_even, bool has_escape) {
  RansTable table;
  table.entries = entries;
  std::array<double, kRansEntries> shares{};
  double left = 1;
  for (unsigned i = 0; i < entries; i++) {
    shares[i] = is_even ? 1.0 / entries : left / 2;
    left -= shares[i];
    table.value[i] = static_cast<uint8_t>(3 * i + 100);
  }
  normalise_shares(shares.data(), entries, table.freq.data());
  if (has_escape) table.escape = entries / 2;
  CAKE_CHECK(table.assign_slots());
  return table;
}
std::vector<RansTable> make_tables() {
  return {make_table(2, false, true),  make_table(16, false, false), make_table(17, true, true),
          make_table(32, false, true), make_table(33, true, false),  make_table(64, false, true)};
}

// Entries as often as the table has it.
Bytes entries_of(const RansTable& table, size_t count, Numbers& numbers) {
  Bytes entries(count);
  for (uint8_t& entry : entries) entry = table.slot(numbers.byte()).entry;
  return entries;
}

void run_rans_encode(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(1);
  for (const RansTable& table : make_tables()) {
    const RansEncodeTable encode_table(table);
    for (const size_t count : kCounts) {
      const Bytes entries = entries_of(table, count, numbers);
      RansStates states = RansStates::initial();
      Bytes stream(kMargin + count + kMargin, kUntouched);
      uint8_t* const out = stream.data() + kMargin + count;
      const uint8_t* const at =
          kernels.rans_encode(states, encode_table, entries.data(), count, out);
      answers.add(static_cast<uint64_t>(out - at));
      answers.add(states);
      // 32 bytes below may change.
      const uint8_t* const begin = stream.data();
      if (at < begin + 32 || at > out) return;
      answers.add(begin, at - 32);
      answers.add(at, begin + stream.size());
    }
  }
}

void run_rans_decode(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(2);
  for (const RansTable& table : make_tables()) {
    const RansEncodeTable encode_table(table);
    for (const size_t count : kCounts) {
      const Bytes entries = entries_of(table, count, numbers);
      RansStates encoded = RansStates::initial();
      Bytes stream(kMargin + count);
      const uint8_t* const end = stream.data() + stream.size();
      const uint8_t* const in = scalar_kernels().rans_encode(encoded, encode_table, entries.data(),
                                                             count, stream.data() + stream.size());
      // As it is, and one byte too short.
      for (const ptrdiff_t missing : {0, 1}) {
        if (end - in < missing) continue;
        std::array<uint32_t, (kMost + 31) / 32 + 1> escapes{};
        Bytes plain(count + kMargin, kUntouched);
        RansStates states = encoded;
        const uint8_t* const at = kernels.rans_decode(states, table, in, end - missing,
                                                      plain.data(), count, escapes.data());
        answers.add(at == nullptr ? ~uint64_t{0} : static_cast<uint64_t>(at - in));
        if (at == nullptr) continue;
        answers.add(states);
        answers.add(plain.data(), plain.data() + plain.size());
        for (const uint32_t word : escapes) answers.add(word);
      }
    }
  }
}

void run_map_entries(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(3);
  for (const unsigned values : {5U, 40U, 63U})
    for (const unsigned first : {0U, 150U}) {
      Bytes map(256, static_cast<uint8_t>(values));
      for (unsigned i = 0; i < values; i++) map[first + i] = static_cast<uint8_t>(i);
      map[3] = 1;
      for (const size_t count : kCounts) {
        Bytes in = numbers.bytes(count);
        for (uint8_t& byte : in)
          if (byte % 8 != 0) byte = static_cast<uint8_t>(first + byte % values);
        Bytes escaped(count + 32 + kMargin, kUntouched);
        const size_t escapes = kernels.map_entries(in.data(), count, map.data(), values,
                                                   answers.room(count), escaped.data());
        answers.add(escapes);
        if (escapes > count) return;
        answers.add(escaped.data(), escaped.data() + escapes);
        answers.add(escaped.data() + count + 32, escaped.data() + escaped.size());
      }
    }
}

// --- elements ---

constexpr uint8_t kBiases[] = {0, 1, 127, 200};

void run_split_bf16(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(4);
  for (const uint8_t bias : kBiases)
    for (const size_t count : kCounts) {
      const Bytes in = numbers.bytes(2 * count);
      const Room to(answers, count, packed_bytes(1, count), packed_bytes(7, count));
      kernels.split_bf16(in.data(), count, bias, to.a, to.b, to.c);
    }
}
void run_merge_bf16(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(5);
  for (const uint8_t bias : kBiases)
    for (const bool has_tops : {false, true})
      for (const size_t count : kCounts) {
        const Bytes symbols = numbers.bytes(count), rest = numbers.bytes(packed_bytes(7, count));
        Bytes tops = numbers.bytes(packed_bytes(1, count));
        if (!has_tops) std::fill(tops.begin(), tops.end(), uint8_t{0});
        kernels.merge_bf16(symbols.data(), tops.data(), rest.data(), count, bias,
                           answers.room(2 * count));
      }
}
void run_split_f16(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(6);
  for (const size_t count : kCounts) {
    const Bytes in = numbers.bytes(2 * count);
    const Room to(answers, count, packed_bytes(2, count), count);
    kernels.split_f16(in.data(), count, to.a, to.b, to.c);
  }
}
void run_merge_f16(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(7);
  for (const size_t count : kCounts) {
    const Bytes symbols = numbers.bytes(count), pairs = numbers.bytes(packed_bytes(2, count)),
                lows = numbers.bytes(count);
    kernels.merge_f16(symbols.data(), pairs.data(), lows.data(), count, answers.room(2 * count));
  }
}

using SplitBytes = void (*CodecKernels::*)(const uint8_t*, size_t, uint8_t*, uint8_t*);
template <SplitBytes Split>
void run_split_bytes(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(8);
  for (const size_t count : kCounts) {
    const Bytes in = numbers.bytes(count);
    const Room to(answers, count, packed_bytes(2, count), 0);
    (kernels.*Split)(in.data(), count, to.a, to.b);
  }
}
using MergeBytes = void (*CodecKernels::*)(const uint8_t*, const uint8_t*, size_t, uint8_t*);
template <MergeBytes Merge>
void run_merge_bytes(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(9);
  for (const size_t count : kCounts) {
    const Bytes symbols = numbers.bytes(count), pairs = numbers.bytes(packed_bytes(2, count));
    (kernels.*Merge)(symbols.data(), pairs.data(), count, answers.room(count));
  }
}

void run_split_f32(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(10);
  for (const size_t count : kCounts) {
    const Bytes in = numbers.bytes(4 * count);
    const Room to(answers, 2 * count, count, count);
    kernels.split_f32(in.data(), count, to.a, to.b, to.c);
  }
}
void run_merge_f32(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(11);
  for (const size_t count : kCounts) {
    const Bytes upper = numbers.bytes(2 * count), mid = numbers.bytes(count),
                low = numbers.bytes(count);
    kernels.merge_f32(upper.data(), mid.data(), low.data(), count, answers.room(4 * count));
  }
}
void run_narrow_f32(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(12);
  for (const size_t count : kCounts) {
    Bytes halves = numbers.bytes(2 * count), wide(4 * count);
    // Not finite, or not an F16, at one place each.
    for (size_t i = 1; i < halves.size(); i += 2)
      if ((halves[i] & 0x7c) == 0x7c) halves[i] &= 0xbf;
    scalar_kernels().widen_f16(halves.data(), count, wide.data());
    answers.add(kernels.narrow_f32(wide.data(), count, answers.room(2 * count)));
    for (const size_t at : {size_t{0}, count / 2, count - 1}) {
      Bytes other = wide, out(2 * count);
      other[4 * at] ^= 1;
      answers.add(kernels.narrow_f32(other.data(), count, out.data()));
      other = wide;
      other[4 * at + 3] = 0x7f;
      other[4 * at + 2] = 0x80;
      answers.add(kernels.narrow_f32(other.data(), count, out.data()));
    }
  }
}
void run_widen_f16(const CodecKernels& kernels, Answers& answers) {
  Numbers numbers(13);
  for (const size_t count : kCounts) {
    const Bytes in = numbers.bytes(2 * count);
    kernels.widen_f16(in.data(), count, answers.room(4 * count));
  }
}

struct Function {
  std::string_view name;
  void (*run)(const CodecKernels& kernels, Answers& answers);
};
constexpr Function kFunctions[] = {
    {"rans_encode", run_rans_encode},
    {"rans_decode", run_rans_decode},
    {"map_entries", run_map_entries},
    {"split_bf16", run_split_bf16},
    {"merge_bf16", run_merge_bf16},
    {"split_f16", run_split_f16},
    {"merge_f16", run_merge_f16},
    {"split_fp8", run_split_bytes<&CodecKernels::split_fp8>},
    {"merge_fp8", run_merge_bytes<&CodecKernels::merge_fp8>},
    {"split_int8", run_split_bytes<&CodecKernels::split_int8>},
    {"merge_int8", run_merge_bytes<&CodecKernels::merge_int8>},
    {"split_f32", run_split_f32},
    {"merge_f32", run_merge_f32},
    {"narrow_f32", run_narrow_f32},
    {"widen_f16", run_widen_f16},
};

}  // namespace

std::optional<std::string_view> find_wrong_kernel(const CodecKernels& kernels) {
  for (const Function& function : kFunctions) {
    Answers expected, got;
    function.run(scalar_kernels(), expected);
    function.run(kernels, got);
    if (got != expected) return function.name;
  }
  return std::nullopt;
}

}  // namespace cake
