// Every set of kernels against the scalar one, the AVX-512 kernels on an emulation too: all tails,
// and between pages that may not be touched.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "store/base/result.h"
#include "store/codec/packing.h"
#include "tests/support/kernel_sets.h"

namespace cake {
namespace {

// Bytes with a page behind, or before, that no one may touch; on the other side what is left of a
// page is 0xa5 and must stay so.
enum class Guard { before, behind };
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t size, Guard guard = Guard::behind) : size_(size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t inner = (size + kSlack + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    void* const at =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CAKE_CHECK(at != MAP_FAILED);
    base_ = static_cast<uint8_t*>(at);
    inner_ = base_ + page;
    inner_bytes_ = inner;
    CAKE_CHECK(mprotect(base_, page, PROT_NONE) == 0);
    CAKE_CHECK(mprotect(inner_ + inner, page, PROT_NONE) == 0);
    std::fill_n(inner_, inner, kFill);
    data_ = guard == Guard::before ? inner_ : inner_ + inner - size;
  }
  explicit GuardedBytes(const std::vector<uint8_t>& bytes) : GuardedBytes(bytes.size()) {
    std::copy(bytes.begin(), bytes.end(), data_);
  }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  ~GuardedBytes() {
    EXPECT_TRUE(is_untouched(inner_, data_) && is_untouched(data_ + size_, inner_ + inner_bytes_));
    munmap(base_, mapped_);
  }
  uint8_t* data() const { return data_; }
  uint8_t* end() const { return data_ + size_; }
  std::vector<uint8_t> bytes() const { return {data_, data_ + size_}; }
  static bool is_untouched(const uint8_t* begin, const uint8_t* end) {
    return std::all_of(begin, end, [](uint8_t byte) { return byte == kFill; });
  }

 private:
  static constexpr size_t kSlack = 128;
  static constexpr uint8_t kFill = 0xa5;
  size_t size_, mapped_, inner_bytes_;
  uint8_t *base_, *inner_, *data_;
};

// Those that are compared with the scalar ones.
std::vector<const CodecKernels*> tested_sets() {
  std::vector<const CodecKernels*> sets = kernel_sets();
  sets.erase(sets.begin());
  return sets;
}

std::vector<uint8_t> noise(size_t size, std::mt19937_64& random) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Every count up to two groups and a tail of each kernel, then some longer ones and a block.
std::vector<size_t> element_counts() {
  std::vector<size_t> counts;
  for (size_t count = 0; count <= 2 * kGroup7 + 130; count += count < 300 ? 1 : 7)
    counts.push_back(count);
  for (const size_t count : {size_t{1'021}, size_t{4'096}, kBlockElements - 1, kBlockElements})
    counts.push_back(count);
  return counts;
}

// Runs `call` with a set and the planes it writes, of these sizes; all sets must write the same.
template <typename Call>
void expect_same_planes(std::initializer_list<size_t> sizes, const Call& call) {
  std::vector<std::vector<uint8_t>> expected;
  for (const CodecKernels* kernels : kernel_sets()) {
    std::vector<std::unique_ptr<GuardedBytes>> planes;
    for (const size_t size : sizes) planes.push_back(std::make_unique<GuardedBytes>(size));
    call(*kernels, planes);
    std::vector<std::vector<uint8_t>> got;
    for (const auto& plane : planes) got.push_back(plane->bytes());
    if (expected.empty()) expected = got;
    EXPECT_EQ(got == expected, true) << kernels->name;
  }
}

TEST(KernelsAvx512, SplitElementsLikeScalar) {
  std::mt19937_64 random(1);
  for (const size_t count : element_counts()) {
    SCOPED_TRACE(count);
    const GuardedBytes in(noise(4 * count, random));
    const auto bias = static_cast<uint8_t>(count % 3 == 0 ? 0 : random());
    const GuardedBytes in2(std::vector<uint8_t>(in.data(), in.data() + 2 * count));
    const GuardedBytes in1(std::vector<uint8_t>(in.data(), in.data() + count));
    expect_same_planes({count, packed_bytes(1, count), packed_bytes(7, count)},
                       [&](const CodecKernels& kernels, const auto& to) {
                         kernels.split_bf16(in2.data(), count, bias, to[0]->data(), to[1]->data(),
                                            to[2]->data());
                       });
    expect_same_planes(
        {count, packed_bytes(2, count), count}, [&](const CodecKernels& kernels, const auto& to) {
          kernels.split_f16(in2.data(), count, to[0]->data(), to[1]->data(), to[2]->data());
        });
    for (const auto split : {&CodecKernels::split_fp8, &CodecKernels::split_int8})
      expect_same_planes({count, packed_bytes(2, count)},
                         [&](const CodecKernels& kernels, const auto& to) {
                           (kernels.*split)(in1.data(), count, to[0]->data(), to[1]->data());
                         });
    expect_same_planes({2 * count, count, count}, [&](const CodecKernels& kernels, const auto& to) {
      kernels.split_f32(in.data(), count, to[0]->data(), to[1]->data(), to[2]->data());
    });
  }
}

TEST(KernelsAvx512, MergeElementsLikeScalar) {
  std::mt19937_64 random(2);
  for (const size_t count : element_counts()) {
    SCOPED_TRACE(count);
    const GuardedBytes symbols(noise(count, random)), lows(noise(count, random));
    const GuardedBytes tops(count % 2 == 0 ? std::vector<uint8_t>(packed_bytes(1, count))
                                           : noise(packed_bytes(1, count), random));
    const GuardedBytes rest(noise(packed_bytes(7, count), random));
    const GuardedBytes pairs(noise(packed_bytes(2, count), random));
    const GuardedBytes upper(noise(2 * count, random));
    const auto bias = static_cast<uint8_t>(count % 3 == 0 ? 0 : random());
    expect_same_planes({2 * count}, [&](const CodecKernels& kernels, const auto& to) {
      kernels.merge_bf16(symbols.data(), tops.data(), rest.data(), count, bias, to[0]->data());
    });
    expect_same_planes({2 * count}, [&](const CodecKernels& kernels, const auto& to) {
      kernels.merge_f16(symbols.data(), pairs.data(), lows.data(), count, to[0]->data());
    });
    for (const auto merge : {&CodecKernels::merge_fp8, &CodecKernels::merge_int8})
      expect_same_planes({count}, [&](const CodecKernels& kernels, const auto& to) {
        (kernels.*merge)(symbols.data(), pairs.data(), count, to[0]->data());
      });
    expect_same_planes({4 * count}, [&](const CodecKernels& kernels, const auto& to) {
      kernels.merge_f32(upper.data(), symbols.data(), lows.data(), count, to[0]->data());
    });
  }
}

TEST(KernelsAvx512, SplitAndMergeEveryBf16WithEveryBias) {
  std::vector<uint8_t> all(2 * 65'536);
  for (unsigned i = 0; i < 65'536; i++) {
    all[2 * i] = static_cast<uint8_t>(i);
    all[2 * i + 1] = static_cast<uint8_t>(i >> 8);
  }
  for (unsigned bias = 0; bias < 256; bias += bias % 16 == 15 ? 1 : 15)
    for (const size_t half : {size_t{0}, 2 * kBlockElements}) {
      const size_t count = kBlockElements;
      expect_same_planes({count, packed_bytes(1, count), packed_bytes(7, count), 2 * count},
                         [&](const CodecKernels& kernels, const auto& to) {
                           const auto as_bias = static_cast<uint8_t>(bias);
                           kernels.split_bf16(all.data() + half, count, as_bias, to[0]->data(),
                                              to[1]->data(), to[2]->data());
                           kernels.merge_bf16(to[0]->data(), to[1]->data(), to[2]->data(), count,
                                              as_bias, to[3]->data());
                           EXPECT_TRUE(std::equal(to[3]->data(), to[3]->end(), all.data() + half));
                         });
    }
}

// --- map_entries ---

TEST(KernelsAvx512, MapsEntriesLikeScalar) {
  std::mt19937_64 random(3);
  // How many of 64 values are escapes; 65: there is none.
  for (const unsigned rare : {0U, 1U, 16U, 63U, 64U, 65U})
    for (size_t count = 0; count < 1'100; count += count < 200 ? 1 : 99) {
      SCOPED_TRACE(count);
      const unsigned escape = rare == 65 ? kNoEscape : 60;
      GuardedBytes map(256);
      for (unsigned i = 0; i < 256; i++)
        map.data()[i] =
            static_cast<uint8_t>(rare < 65 && random() % 64 < rare ? 60 : random() % 60);
      const GuardedBytes in(noise(count, random));
      std::vector<uint8_t> expected_escaped;
      expect_same_planes({count}, [&](const CodecKernels& kernels, const auto& to) {
        const GuardedBytes escaped(count + 32);
        const size_t escapes = kernels.map_entries(in.data(), count, map.data(), escape,
                                                   to[0]->data(), escaped.data());
        ASSERT_LE(escapes, count);
        const std::vector<uint8_t> got(escaped.data(), escaped.data() + escapes);
        if (&kernels == &scalar_kernels()) expected_escaped = got;
        EXPECT_EQ(got, expected_escaped) << kernels.name;
      });
    }
}

// --- rans ---

// A table of so many entries; with a large `skew` a few have nearly all slots.
RansTable make_table(unsigned entries, unsigned skew, bool has_escape, std::mt19937_64& random) {
  RansTable table;
  table.entries = entries;
  std::vector<double> shares(entries);
  double sum = 0;
  for (double& share : shares) {
    share = 1;
    for (unsigned i = 0; i < skew; i++) share *= static_cast<double>(1 + random() % 1'000);
    sum += share;
  }
  for (double& share : shares) share /= sum;
  normalise_shares(shares.data(), entries, table.freq.data());
  for (unsigned i = 0; i < entries; i++) table.value[i] = static_cast<uint8_t>(random());
  if (has_escape) table.escape = entries - 1;
  EXPECT_TRUE(table.assign_slots());
  return table;
}

std::vector<uint8_t> entries_of(const RansTable& table, size_t count, std::mt19937_64& random) {
  std::vector<uint8_t> entries(count);
  for (uint8_t& entry : entries) entry = table.slot(random() % kRansSlots).entry;
  return entries;
}

struct Decoded {
  ptrdiff_t taken = -1;  // -1: the stream ends too soon
  std::vector<uint8_t> plain;
  std::vector<uint32_t> escapes;
  RansStates states;
  bool operator==(const Decoded& other) const {
    return taken == other.taken && (taken < 0 || (plain == other.plain && states == other.states &&
                                                  escapes == other.escapes));
  }
};
Decoded decode(const CodecKernels& kernels, const RansTable& table, RansStates states,
               const GuardedBytes& stream, size_t count) {
  const GuardedBytes plain(count), escapes(sizeof(uint32_t) * ((count + 31) / 32));
  const uint8_t* const at =
      kernels.rans_decode(states, table, stream.data(), stream.end(), plain.data(), count,
                          reinterpret_cast<uint32_t*>(escapes.data()));
  Decoded decoded;
  if (at == nullptr) return decoded;
  decoded.taken = at - stream.data();
  decoded.plain = plain.bytes();
  decoded.states = states;
  decoded.escapes.resize((count + 31) / 32);
  std::copy_n(escapes.data(), sizeof(uint32_t) * decoded.escapes.size(),
              reinterpret_cast<uint8_t*>(decoded.escapes.data()));
  return decoded;
}

struct Encoded {
  std::vector<uint8_t> stream;
  RansStates states;
  bool operator==(const Encoded&) const = default;
};
Encoded encode(const CodecKernels& kernels, const RansEncodeTable& table, RansStates states,
               const GuardedBytes& entries) {
  const auto count = static_cast<size_t>(entries.end() - entries.data());
  // Below: the 32 bytes that may change below the shortest stream, and a page that may not.  Above:
  // whoever writes there writes on a page that may not be touched.
  Encoded encoded;
  for (const Guard guard : {Guard::before, Guard::behind}) {
    encoded.states = states;
    const GuardedBytes room(count + 32, guard);
    uint8_t* const at =
        kernels.rans_encode(encoded.states, table, entries.data(), count, room.end());
    EXPECT_TRUE(at >= room.data() + 32 && at <= room.end());
    EXPECT_TRUE(GuardedBytes::is_untouched(room.data(), at - 32)) << kernels.name;
    encoded.stream.assign(at, room.end());
  }
  return encoded;
}

// Encodes and decodes with all sets; returns the stream.
Encoded expect_same_coding(const RansTable& table, const std::vector<uint8_t>& entries) {
  const RansEncodeTable encode_table(table);
  const GuardedBytes in(entries);
  const Encoded expected = encode(scalar_kernels(), encode_table, RansStates::initial(), in);
  const GuardedBytes stream(expected.stream);
  const Decoded plain = decode(scalar_kernels(), table, expected.states, stream, entries.size());
  EXPECT_EQ(plain.states, RansStates::initial());
  for (const CodecKernels* kernels : tested_sets()) {
    EXPECT_EQ(encode(*kernels, encode_table, RansStates::initial(), in) == expected, true)
        << kernels->name;
    EXPECT_EQ(decode(*kernels, table, expected.states, stream, entries.size()) == plain, true)
        << kernels->name;
  }
  return expected;
}

TEST(KernelsAvx512, CodeTablesOfAnySizeLikeScalar) {
  std::mt19937_64 random(4);
  for (unsigned entries = 2; entries <= kRansEntries; entries++)
    for (const unsigned skew : {0U, 1U, 6U})
      for (const bool has_escape : {false, true}) {
        SCOPED_TRACE(entries);
        const RansTable table = make_table(entries, skew, has_escape, random);
        expect_same_coding(table, entries_of(table, 1'000 + random() % 300, random));
      }
}

TEST(KernelsAvx512, CodeAnyCountLikeScalar) {
  std::mt19937_64 random(5);
  const RansTable table = make_table(20, 1, true, random);
  for (size_t count = 0; count < 700; count++) {
    SCOPED_TRACE(count);
    expect_same_coding(table, entries_of(table, count, random));
  }
  for (const size_t count : {kRansSegment - 1, kRansSegment})
    expect_same_coding(table, entries_of(table, count, random));
}

// From nothing written at all to a byte a lane and step.
TEST(KernelsAvx512, CodeRareAndCommonEntriesLikeScalar) {
  std::mt19937_64 random(6);
  RansTable table;
  table.entries = 2;
  table.escape = 1;
  table.freq = {255, 1};
  ASSERT_TRUE(table.assign_slots());
  for (const size_t count : {size_t{128}, size_t{640}, size_t{2'000}}) {
    expect_same_coding(table, std::vector<uint8_t>(count, 0));
    expect_same_coding(table, std::vector<uint8_t>(count, 1));
    std::vector<uint8_t> mixed(count);
    for (uint8_t& entry : mixed) entry = random() % 2;
    expect_same_coding(table, mixed);
  }
}

// Every frequency with every state that can be before a division.
TEST(KernelsAvx512, DivideEveryStateLikeScalar) {
  std::mt19937_64 random(7);
  for (unsigned freq = 1; freq <= 255; freq += freq < 16 || freq > 240 ? 1 : 5) {
    RansTable table;
    table.entries = freq == 255 ? 2 : 40;
    table.freq[0] = static_cast<uint8_t>(freq);
    if (freq == 255) {
      table.freq[1] = 1;
    } else if (freq <= 217) {
      for (unsigned i = 1; i < 40; i++) table.freq[i] = 1;
      unsigned left = 256 - freq - 39;
      for (unsigned i = 1; left > 0; i++) {
        const unsigned more = std::min(left, 254U);
        table.freq[i] = static_cast<uint8_t>(1 + more);
        left -= more;
      }
    } else {
      table.entries = 257 - freq;
      for (unsigned i = 1; i < table.entries; i++) table.freq[i] = 1;
    }
    ASSERT_TRUE(table.assign_slots());
    const RansEncodeTable encode_table(table);
    const GuardedBytes entries(std::vector<uint8_t>(kRansLanes, 0));
    for (unsigned first = 0; first < 65'536; first += kRansLanes) {
      RansStates states;
      for (unsigned lane = 0; lane < kRansLanes; lane++) {
        states.low[lane] = static_cast<uint8_t>(first + lane);
        states.high[lane] = static_cast<uint8_t>((first + lane) >> 8);
      }
      uint8_t below[64 + kRansLanes], expected_below[64 + kRansLanes];
      RansStates expected = states;
      const uint8_t* const expected_at = scalar_kernels().rans_encode(
          expected, encode_table, entries.data(), kRansLanes, std::end(expected_below));
      for (const CodecKernels* kernels : tested_sets()) {
        RansStates got = states;
        const uint8_t* const at =
            kernels->rans_encode(got, encode_table, entries.data(), kRansLanes, std::end(below));
        ASSERT_EQ(got == expected, true) << kernels->name << ", " << freq << ", " << first;
        ASSERT_TRUE(std::equal(at, static_cast<const uint8_t*>(std::end(below)), expected_at,
                               static_cast<const uint8_t*>(std::end(expected_below))));
      }
    }
  }
}

TEST(KernelsAvx512, SeeAStreamThatEndsTooSoonLikeScalar) {
  std::mt19937_64 random(8);
  for (const unsigned entries : {2U, 10U, 20U, 64U}) {
    const RansTable table = make_table(entries, 1, true, random);
    const Encoded encoded = expect_same_coding(table, entries_of(table, 900, random));
    for (size_t length = 0; length < encoded.stream.size(); length++) {
      const GuardedBytes stream(std::vector<uint8_t>(
          encoded.stream.begin(), encoded.stream.begin() + static_cast<ptrdiff_t>(length)));
      for (const CodecKernels* kernels : kernel_sets())
        EXPECT_EQ(decode(*kernels, table, encoded.states, stream, 900).taken, -1)
            << kernels->name << ", " << length;
    }
  }
}

// Noise, from any states: what a damaged chunk may hold, and states that no reader lets through.
TEST(KernelsAvx512, DecodeNoiseLikeScalar) {
  std::mt19937_64 random(9);
  for (int round = 0; round < 400; round++) {
    const auto entries = static_cast<unsigned>(2 + random() % 63);
    const RansTable table = make_table(entries, random() % 8, random() % 2 == 0, random);
    RansStates states;
    for (uint8_t& byte : states.low) byte = static_cast<uint8_t>(random());
    for (uint8_t& byte : states.high)
      byte = static_cast<uint8_t>(round % 3 == 0 ? random() % 2 : random());
    const GuardedBytes stream(noise(random() % 1'500, random));
    const size_t count = random() % 1'200;
    const Decoded expected = decode(scalar_kernels(), table, states, stream, count);
    for (const CodecKernels* kernels : tested_sets())
      EXPECT_EQ(decode(*kernels, table, states, stream, count) == expected, true)
          << kernels->name << ", " << round;
  }
}

// --- F16 and F32 ---

TEST(KernelsAvx512, WidenAndNarrowLikeScalar) {
  std::vector<uint8_t> halves(2 * 65'536);
  for (unsigned i = 0; i < 65'536; i++) {
    halves[2 * i] = static_cast<uint8_t>(i);
    halves[2 * i + 1] = static_cast<uint8_t>(i >> 8);
  }
  for (const size_t at : {size_t{0}, size_t{30'000}}) {
    const GuardedBytes in(
        std::vector<uint8_t>(halves.begin() + static_cast<ptrdiff_t>(2 * at),
                             halves.begin() + static_cast<ptrdiff_t>(2 * at + 65'534)));
    const size_t count = 32'767;
    expect_same_planes({4 * count, 2 * count}, [&](const CodecKernels& kernels, const auto& to) {
      kernels.widen_f16(in.data(), count, to[0]->data());
      // Up to the first that is not finite, and with it.
      const size_t finite = at == 0 ? 0x7c00 : 0;
      EXPECT_TRUE(kernels.narrow_f32(to[0]->data(), finite, to[1]->data()));
      EXPECT_EQ(kernels.narrow_f32(to[0]->data(), count, to[1]->data()), false);
    });
  }
}

}  // namespace
}  // namespace cake
