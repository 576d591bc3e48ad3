// Every set of kernels against the scalar one: the same bytes, and nothing beyond the lengths.
#include "store/codec/kernels.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <numeric>
#include <optional>
#include <random>

#include "store/base/result.h"
#include "store/codec/packing.h"
#include "tests/support/kernel_sets.h"

namespace cake {
namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

// Where a buffer touches a page that cannot be accessed.
enum class Edge { front, back };
constexpr Edge kEdges[] = {Edge::front, Edge::back};

// Memory of an exact length that faults on one side of it; written with 0xcc elsewhere.
class Guarded {
 public:
  Guarded(size_t size, Edge edge) : size_(size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = align_up(size, page) + 2 * page;
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CAKE_CHECK(base_ != MAP_FAILED);
    const size_t inner = mapped_ - 2 * page;
    if (inner > 0) {
      CAKE_CHECK(mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) == 0);
      std::fill_n(base_ + page, inner, uint8_t{0xcc});
    }
    data_ = edge == Edge::front ? base_ + page : base_ + page + inner - size;
  }
  Guarded(const Bytes& bytes, Edge edge) : Guarded(bytes.size(), edge) {
    std::copy(bytes.begin(), bytes.end(), data_);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  uint8_t* data() const { return data_; }
  uint8_t* end() const { return data_ + size_; }
  size_t size() const { return size_; }
  Bytes bytes() const { return Bytes(data_, data_ + size_); }

 private:
  size_t size_, mapped_ = 0;
  uint8_t* base_ = nullptr;
  uint8_t* data_ = nullptr;
};

Bytes noise(Random& random, size_t size) {
  Bytes bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Every number of whole groups and what is behind them up to two groups, and a whole block's end.
std::vector<size_t> counts_to_try() {
  std::vector<size_t> counts(2 * kGroup7 + 3);
  std::iota(counts.begin(), counts.end(), 0);
  for (const size_t count : {size_t{1'000}, kBlockElements - 1, kBlockElements})
    counts.push_back(count);
  return counts;
}

// --- Elements and planes ---

// A function of the table as one from strings of bytes to strings of bytes.
struct PlaneCase {
  std::string name;
  // Bytes that `count` elements take in each input and output.
  std::vector<size_t> in, out;
  std::function<void(const CodecKernels&, const uint8_t* const*, uint8_t* const*)> run;
};

// `bias` where there is one.
std::vector<PlaneCase> plane_cases(size_t n, uint8_t bias) {
  const size_t p1 = packed_bytes(1, n), p2 = packed_bytes(2, n), p7 = packed_bytes(7, n);
  using K = const CodecKernels&;
  using In = const uint8_t* const*;
  using Out = uint8_t* const*;
  return {
      {"split_bf16",
       {2 * n},
       {n, p1, p7},
       [=](K k, In i, Out o) { k.split_bf16(i[0], n, bias, o[0], o[1], o[2]); }},
      {"merge_bf16",
       {n, p1, p7},
       {2 * n},
       [=](K k, In i, Out o) { k.merge_bf16(i[0], i[1], i[2], n, bias, o[0]); }},
      {"split_f16",
       {2 * n},
       {n, p2, n},
       [=](K k, In i, Out o) { k.split_f16(i[0], n, o[0], o[1], o[2]); }},
      {"merge_f16",
       {n, p2, n},
       {2 * n},
       [=](K k, In i, Out o) { k.merge_f16(i[0], i[1], i[2], n, o[0]); }},
      {"split_fp8", {n}, {n, p2}, [=](K k, In i, Out o) { k.split_fp8(i[0], n, o[0], o[1]); }},
      {"merge_fp8", {n, p2}, {n}, [=](K k, In i, Out o) { k.merge_fp8(i[0], i[1], n, o[0]); }},
      {"split_int8", {n}, {n, p2}, [=](K k, In i, Out o) { k.split_int8(i[0], n, o[0], o[1]); }},
      {"merge_int8", {n, p2}, {n}, [=](K k, In i, Out o) { k.merge_int8(i[0], i[1], n, o[0]); }},
      {"split_f32",
       {4 * n},
       {2 * n, n, n},
       [=](K k, In i, Out o) { k.split_f32(i[0], n, o[0], o[1], o[2]); }},
      {"merge_f32",
       {2 * n, n, n},
       {4 * n},
       [=](K k, In i, Out o) { k.merge_f32(i[0], i[1], i[2], n, o[0]); }},
      {"widen_f16", {2 * n}, {4 * n}, [=](K k, In i, Out o) { k.widen_f16(i[0], n, o[0]); }},
  };
}

// What a set makes of these inputs.
std::vector<Bytes> outputs(const CodecKernels& kernels, const PlaneCase& one,
                           const std::vector<Bytes>& inputs, Edge edge) {
  std::deque<Guarded> in, out;
  std::vector<const uint8_t*> in_at;
  std::vector<uint8_t*> out_at;
  for (const Bytes& bytes : inputs) in_at.push_back(in.emplace_back(bytes, edge).data());
  for (const size_t size : one.out) out_at.push_back(out.emplace_back(size, edge).data());
  one.run(kernels, in_at.data(), out_at.data());
  std::vector<Bytes> made;
  for (const Guarded& buffer : out) made.push_back(buffer.bytes());
  return made;
}

void expect_alike(const PlaneCase& one, const std::vector<Bytes>& inputs, size_t count) {
  const std::vector<Bytes> expected = outputs(scalar_kernels(), one, inputs, Edge::back);
  for (const CodecKernels* kernels : kernel_sets())
    for (const Edge edge : kEdges)
      ASSERT_EQ(outputs(*kernels, one, inputs, edge), expected)
          << kernels->name << " " << one.name << " of " << count;
}

// Planes that are merged hold any bytes, as those of a hostile frame do.
TEST(CodecKernels, MovePlanesAlike) {
  Random random(1);
  for (const size_t count : counts_to_try())
    for (const PlaneCase& one : plane_cases(count, static_cast<uint8_t>(random()))) {
      std::vector<Bytes> inputs;
      for (const size_t size : one.in) inputs.push_back(noise(random, size));
      expect_alike(one, inputs, count);
    }
}

// As most weights have it: no bias, and a plane of zeros.
TEST(CodecKernels, MergeBf16WithoutABias) {
  Random random(2);
  for (const size_t count : {size_t{255}, size_t{256}, size_t{777}, kBlockElements}) {
    const PlaneCase one = plane_cases(count, 0)[1];
    ASSERT_EQ(one.name, "merge_bf16");
    expect_alike(one, {noise(random, one.in[0]), Bytes(one.in[1]), noise(random, one.in[2])},
                 count);
  }
}

TEST(CodecKernels, GiveBackEveryPatternOf16Bits) {
  Bytes patterns;
  for (unsigned i = 0; i < 65'536; i++) {
    patterns.push_back(static_cast<uint8_t>(i));
    patterns.push_back(static_cast<uint8_t>(i >> 8));
  }
  constexpr size_t kHalf = kBlockElements;
  for (const CodecKernels* kernels : kernel_sets())
    for (const uint8_t* in : {patterns.data(), patterns.data() + 2 * kHalf}) {
      Bytes a(kHalf), b(kHalf), c(kHalf), out(2 * kHalf);
      for (const uint8_t bias : {0, 1, 77, 127, 128, 255}) {
        kernels->split_bf16(in, kHalf, bias, a.data(), b.data(), c.data());
        kernels->merge_bf16(a.data(), b.data(), c.data(), kHalf, bias, out.data());
        EXPECT_TRUE(std::equal(out.begin(), out.end(), in)) << kernels->name;
      }
      kernels->split_f16(in, kHalf, a.data(), b.data(), c.data());
      kernels->merge_f16(a.data(), b.data(), c.data(), kHalf, out.data());
      EXPECT_TRUE(std::equal(out.begin(), out.end(), in)) << kernels->name;
    }
}

// --- F32 and F16 ---

// Like outputs() of narrow_f32; nullopt when it refuses.
std::optional<Bytes> narrowed(const CodecKernels& kernels, const Bytes& in, Edge edge) {
  const Guarded from(in, edge), to(in.size() / 2, edge);
  if (!kernels.narrow_f32(from.data(), in.size() / 4, to.data())) return std::nullopt;
  return to.bytes();
}
Bytes f32_bytes(const std::vector<uint32_t>& elements) {
  Bytes bytes(4 * elements.size());
  for (size_t i = 0; i < elements.size(); i++)
    store_le(reinterpret_cast<std::byte*>(&bytes[4 * i]), elements[i]);
  return bytes;
}

TEST(CodecKernels, WidenEveryF16) {
  Bytes halves;
  for (unsigned i = 0; i < 65'536; i++) {
    halves.push_back(static_cast<uint8_t>(i));
    halves.push_back(static_cast<uint8_t>(i >> 8));
  }
  Bytes expected(2 * halves.size()), wide(expected.size());
  scalar_kernels().widen_f16(halves.data(), 65'536, expected.data());
  for (const CodecKernels* kernels : kernel_sets()) {
    kernels->widen_f16(halves.data(), 65'536, wide.data());
    EXPECT_EQ(wide, expected) << kernels->name;
    // All finite ones come back; one after another, as one that does not hides the others.
    for (size_t i = 0; i < 65'536; i++) {
      const Bytes eight = [&] {
        Bytes bytes;
        for (int copy = 0; copy < 8; copy++)
          bytes.insert(bytes.end(), expected.begin() + static_cast<ptrdiff_t>(4 * i),
                       expected.begin() + static_cast<ptrdiff_t>(4 * i + 4));
        return bytes;
      }();
      Bytes narrow(16);
      const bool is_finite = (i >> 10 & 0x1f) != 0x1f;
      ASSERT_EQ(kernels->narrow_f32(eight.data(), 8, narrow.data()), is_finite)
          << kernels->name << " " << i;
      if (is_finite) {
        ASSERT_TRUE(std::equal(narrow.begin(), narrow.begin() + 2, &halves[2 * i])) << i;
        ASSERT_TRUE(std::equal(narrow.begin() + 2, narrow.end(), narrow.begin())) << i;
      }
    }
  }
}

TEST(CodecKernels, NarrowWhatComesBackOnly) {
  // Around what F16 can hold: least denormals, least normals, the greatest, infinite, NaN.
  const std::vector<uint32_t> odd = {
      0x00000001, 0x32ffffff, 0x33000000, 0x33800000, 0x33800001, 0x33c00000, 0x387fc000,
      0x387fe000, 0x38800000, 0x38801000, 0x477fe000, 0x477ff000, 0x47800000, 0x47ffe000,
      0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7f802000, 0x3f800001, 0x80000000};
  for (const uint32_t element : odd)
    for (const size_t count : {1, 7, 8, 9, 16, 31, 33})
      for (size_t at = 0; at < count; at++) {
        std::vector<uint32_t> elements(count, 0x3f802000);
        elements[at] = element;
        const Bytes in = f32_bytes(elements);
        const std::optional<Bytes> expected = narrowed(scalar_kernels(), in, Edge::back);
        for (const CodecKernels* kernels : kernel_sets())
          for (const Edge edge : kEdges)
            ASSERT_EQ(narrowed(*kernels, in, edge), expected)
                << kernels->name << " " << element << " at " << at << " of " << count;
      }
}

TEST(CodecKernels, NarrowAnyCount) {
  Random random(3);
  for (const size_t count : counts_to_try()) {
    Bytes halves = noise(random, 2 * count), in(4 * count);
    for (size_t i = 1; i < halves.size(); i += 2) halves[i] &= 0xbf;  // finite
    scalar_kernels().widen_f16(halves.data(), count, in.data());
    for (const CodecKernels* kernels : kernel_sets())
      for (const Edge edge : kEdges) ASSERT_EQ(narrowed(*kernels, in, edge), halves) << count;
  }
}

// --- rans ---

// A table of this many entries, the last the escape if there is one; freqs are skewed.
RansTable random_table(Random& random, unsigned entries, bool has_escape) {
  RansTable table;
  table.entries = entries;
  if (has_escape) table.escape = entries - 1;
  std::array<uint8_t, 256> values;
  std::iota(values.begin(), values.end(), uint8_t{0});
  std::shuffle(values.begin(), values.end(), random);
  std::copy_n(values.begin(), entries, table.value.begin());
  std::fill_n(table.freq.begin(), entries, uint8_t{1});
  const uint64_t skew = 1 + random() % entries;
  for (unsigned left = kRansSlots - entries; left > 0;) {
    uint8_t& freq = table.freq[std::min(random() % entries, random() % skew)];
    if (freq == 255) continue;
    freq++;
    left--;
  }
  CAKE_CHECK(table.assign_slots());
  return table;
}
// Two entries, the first with this frequency.
RansTable table_of_two(uint8_t freq) {
  RansTable table;
  table.entries = 2;
  table.freq = {freq, static_cast<uint8_t>(kRansSlots - freq)};
  table.value = {7, 200};
  CAKE_CHECK(table.assign_slots());
  return table;
}

RansStates random_states(Random& random, bool is_hostile) {
  RansStates states;
  for (size_t i = 0; i < kRansLanes; i++) {
    states.low[i] = static_cast<uint8_t>(random());
    states.high[i] = static_cast<uint8_t>(is_hostile ? random() % 4 : 1 + random() % 255);
  }
  return states;
}

struct DecodedBytes {
  bool is_whole = false;  // the rest holds only then
  RansStates states;
  size_t taken = 0;
  Bytes out, escapes;
  bool operator==(const DecodedBytes&) const = default;
};
std::ostream& operator<<(std::ostream& to, const DecodedBytes& decoded) {
  return to << (decoded.is_whole ? "whole, taken " : "not whole ") << decoded.taken;
}

DecodedBytes decoded_by(const CodecKernels& kernels, RansStates states, const RansTable& table,
                        const Bytes& stream, size_t count, Edge edge) {
  const Guarded in(stream, edge), out(count, edge), escapes((count + 31) / 32 * 4, edge);
  const uint8_t* const at = kernels.rans_decode(states, table, in.data(), in.end(), out.data(),
                                                count, reinterpret_cast<uint32_t*>(escapes.data()));
  if (at == nullptr) return {};
  return {true, states, static_cast<size_t>(at - in.data()), out.bytes(), escapes.bytes()};
}

DecodedBytes expect_decoded_alike(const RansStates& states, const RansTable& table,
                                  const Bytes& stream, size_t count) {
  const DecodedBytes expected =
      decoded_by(scalar_kernels(), states, table, stream, count, Edge::back);
  for (const CodecKernels* kernels : kernel_sets())
    for (const Edge edge : kEdges)
      EXPECT_EQ(decoded_by(*kernels, states, table, stream, count, edge), expected)
          << kernels->name << ", " << count << " of " << table.entries << " entries";
  return expected;
}

struct EncodedBytes {
  RansStates states;
  Bytes stream;
  bool operator==(const EncodedBytes&) const = default;
};
std::ostream& operator<<(std::ostream& to, const EncodedBytes& encoded) {
  return to << encoded.stream.size() << " bytes";
}

// `room` bytes for the stream, and the 32 below it that may change.
EncodedBytes encoded_by(const CodecKernels& kernels, RansStates states,
                        const RansEncodeTable& table, const Bytes& entries, size_t room,
                        Edge edge) {
  const Guarded in(entries, edge), out(room + 32, edge);
  const uint8_t* const at =
      kernels.rans_encode(states, table, in.data(), entries.size(), out.end());
  return {states, Bytes(at, const_cast<const uint8_t*>(out.end()))};
}

EncodedBytes expect_encoded_alike(const RansStates& states, const RansEncodeTable& table,
                                  const Bytes& entries) {
  const EncodedBytes expected =
      encoded_by(scalar_kernels(), states, table, entries, entries.size(), Edge::back);
  for (const CodecKernels* kernels : kernel_sets())
    for (const Edge edge : kEdges)
      EXPECT_EQ(encoded_by(*kernels, states, table, entries, expected.stream.size(), edge),
                expected)
          << kernels->name << ", " << entries.size() << " of " << table.entries << " entries";
  return expected;
}

// Entries as often as their frequencies say.
Bytes random_entries(Random& random, const RansTable& table, size_t count) {
  Bytes entries(count);
  for (uint8_t& entry : entries) entry = table.slot(random() % kRansSlots).entry;
  return entries;
}

void expect_round_trip_alike(Random& random, const RansTable& table, const Bytes& entries) {
  const RansStates before = random_states(random, false);
  const EncodedBytes encoded = expect_encoded_alike(before, RansEncodeTable(table), entries);
  const DecodedBytes decoded =
      expect_decoded_alike(encoded.states, table, encoded.stream, entries.size());
  ASSERT_TRUE(decoded.is_whole);
  EXPECT_EQ(decoded.states, before);
  EXPECT_EQ(decoded.taken, encoded.stream.size());
  for (size_t i = 0; i < entries.size(); i++) {
    ASSERT_EQ(decoded.out[i], table.value[entries[i]]) << i;
    ASSERT_EQ(decoded.escapes[i / 8] >> i % 8 & 1, entries[i] == table.escape) << i;
  }
  // Bytes behind the stream belong to the next segment, and none may be missing.
  Bytes more = encoded.stream;
  for (const size_t extra : {size_t{1}, size_t{17}, size_t{200}}) {
    more.resize(encoded.stream.size() + extra, 0x5a);
    EXPECT_EQ(expect_decoded_alike(encoded.states, table, more, entries.size()), decoded);
  }
  for (const size_t missing : {size_t{1}, size_t{16}, size_t{129}}) {
    if (missing > encoded.stream.size()) break;
    const Bytes less(encoded.stream.begin(),
                     encoded.stream.end() - static_cast<ptrdiff_t>(missing));
    EXPECT_FALSE(expect_decoded_alike(encoded.states, table, less, entries.size()).is_whole);
  }
}

TEST(CodecKernels, CodeTablesOfAnySizeAlike) {
  Random random(4);
  for (unsigned entries = 2; entries <= kRansEntries; entries++)
    for (const bool has_escape : {false, true})
      for (const size_t count : {size_t{128}, size_t{1'000}}) {
        const RansTable table = random_table(random, entries, has_escape);
        expect_round_trip_alike(random, table, random_entries(random, table, count));
      }
}

TEST(CodecKernels, CodeAnyCountAlike) {
  Random random(5);
  for (const unsigned entries : {5, 24, 64}) {
    const RansTable table = random_table(random, entries, true);
    for (size_t count = 0; count <= 3 * kRansLanes + 1; count++)
      expect_round_trip_alike(random, table, random_entries(random, table, count));
    expect_round_trip_alike(random, table, random_entries(random, table, kRansSegment));
  }
}

// Entries that take a byte at nearly every step, and such that hardly take one.
TEST(CodecKernels, CodeTheRarestAndTheCommonestAlike) {
  Random random(6);
  for (const unsigned entries : {2, 16, 17, 32, 33, 64}) {
    const RansTable table = random_table(random, entries, true);
    const auto by_freq = std::minmax_element(table.freq.begin(), table.freq.begin() + entries);
    for (const auto& entry : {by_freq.first, by_freq.second})
      for (const size_t count : {size_t{256}, size_t{2'000}})
        expect_round_trip_alike(random, table,
                                Bytes(count, static_cast<uint8_t>(entry - table.freq.begin())));
  }
}

// Every state there is with every frequency there is.
TEST(CodecKernels, DivideExactly) {
  std::vector<const CodecKernels*> others = kernel_sets();
  others.erase(others.begin());
  const Bytes entries(kRansLanes, 0);
  for (unsigned freq = 1; freq < kRansSlots; freq++) {
    const RansEncodeTable table(table_of_two(static_cast<uint8_t>(freq)));
    for (unsigned state = kRansSlots; state < 65'536; state += kRansLanes) {
      RansStates before;
      for (unsigned i = 0; i < kRansLanes; i++) {
        before.low[i] = static_cast<uint8_t>(state + i);
        before.high[i] = static_cast<uint8_t>((state + i) >> 8);
      }
      RansStates expected = before;
      std::array<uint8_t, kRansLanes + 32> stream, other;
      const uint8_t* const at = scalar_kernels().rans_encode(
          expected, table, entries.data(), entries.size(), stream.data() + stream.size());
      for (const CodecKernels* kernels : others) {
        RansStates states = before;
        const uint8_t* const other_at = kernels->rans_encode(
            states, table, entries.data(), entries.size(), other.data() + other.size());
        ASSERT_EQ(other_at - other.data(), at - stream.data()) << freq << " " << state;
        ASSERT_TRUE(states == expected) << kernels->name << " " << freq << " " << state;
        ASSERT_TRUE(std::equal(at, const_cast<const uint8_t*>(stream.end()), other_at));
      }
    }
  }
}

TEST(CodecKernels, ReadHostileStreamsAlike) {
  Random random(7);
  for (int round = 0; round < 600; round++) {
    const unsigned entries = 2 + static_cast<unsigned>(random() % (kRansEntries - 1));
    const RansTable table = random_table(random, entries, random() % 2 == 0);
    const size_t count = random() % 3'000;
    const RansStates states = random_states(random, round % 2 == 0);
    expect_decoded_alike(states, table, noise(random, random() % (count + 200)), count);
    expect_decoded_alike(states, table, Bytes(random() % (count + 200)), count);
  }
}

// --- Entries of values ---

void expect_mapped_alike(const Bytes& in, const Bytes& map, unsigned escape) {
  const auto mapped_by = [&](const CodecKernels& kernels, Edge edge) {
    const Guarded from(in, edge), table(map, edge);
    const Guarded entries(in.size(), edge), escaped(in.size() + 32, edge);
    const size_t escapes = kernels.map_entries(from.data(), in.size(), table.data(), escape,
                                               entries.data(), escaped.data());
    CAKE_CHECK(escapes <= in.size());
    return std::pair(entries.bytes(), Bytes(escaped.data(), escaped.data() + escapes));
  };
  const auto expected = mapped_by(scalar_kernels(), Edge::back);
  for (const CodecKernels* kernels : kernel_sets())
    for (const Edge edge : kEdges)
      ASSERT_TRUE(mapped_by(*kernels, edge) == expected)
          << kernels->name << ", " << in.size() << ", escape " << escape;
}

TEST(CodecKernels, MapValuesAlike) {
  Random random(8);
  // Values within a window of this width from each start, others escapes.
  for (const unsigned width : {0, 1, 2, 16, 62, 63, 64, 65, 100, 256})
    for (unsigned first = 0; first < 256; first += 1 + (width > 2) * 6) {
      Bytes map(256, 63);
      for (unsigned i = 0; i < width && first + i < 256; i++)
        map[first + i] = static_cast<uint8_t>(i % 63);
      Bytes in(256 + first % 64);
      std::iota(in.begin(), in.end(), uint8_t{0});
      std::shuffle(in.begin(), in.end(), random);
      for (const unsigned escape : {63U, kNoEscape}) expect_mapped_alike(in, map, escape);
    }
  for (size_t count = 0; count <= 300; count++) {
    Bytes map(256, 5), near(count), far = noise(random, count);
    for (uint8_t& value : near) value = static_cast<uint8_t>(100 + random() % 70);
    for (unsigned i = 0; i < 60; i++) map[103 + i] = static_cast<uint8_t>(i);
    expect_mapped_alike(near, map, 5);
    map[7] = 9;
    expect_mapped_alike(far, map, 5);
    expect_mapped_alike(near, map, 5);
  }
  expect_mapped_alike(noise(random, kRansSegment), noise(random, 256), 17);
}

}  // namespace
}  // namespace cake
