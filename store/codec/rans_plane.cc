#include "store/codec/rans_plane.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "store/codec/histogram.h"

namespace cake {

namespace {

// states (low bytes, high bytes), length of the tables
constexpr size_t kHeadBytes = 2 * kRansLanes + 4;
constexpr size_t kMaxPlane = kMiB;
constexpr size_t kMaxSegments = kMaxPlane / kRansSegment;
// Of a table without its escapes' indices.
constexpr size_t kMaxTableBytes = 1 + 2 * kRansEntries + kRansEntries + 4 + 256;
Error corrupt_rans(std::string_view reason) {
  return Error{Errc::corrupt, cat("rans: ", reason)};
}

// The values that get slots, ascending, with their shares of the sample.
struct Alphabet {
  unsigned size = 0;
  std::array<uint8_t, kRansEntries> values;
  std::array<double, kRansEntries> shares;
};

Alphabet choose_alphabet(const uint32_t* counts) {
  uint64_t total = 0;
  std::array<uint8_t, 256> order;
  unsigned seen = 0;
  for (unsigned v = 0; v < 256; v++) {
    total += counts[v];
    if (counts[v] != 0) order[seen++] = static_cast<uint8_t>(v);
  }
  constexpr unsigned kMost = kRansEntries - 1;
  if (seen > kMost) {
    std::nth_element(order.begin(), order.begin() + kMost, order.begin() + seen,
                     [&](uint8_t a, uint8_t b) { return counts[a] > counts[b]; });
    std::sort(order.begin(), order.begin() + kMost);
    seen = kMost;
  }
  Alphabet alphabet;
  for (unsigned i = 0; i < seen; i++) {
    const double share = static_cast<double>(counts[order[i]]) / static_cast<double>(total);
    if (share < kRansWorthASlot && alphabet.size > 0) continue;
    alphabet.values[alphabet.size] = order[i];
    alphabet.shares[alphabet.size++] = share;
  }
  return alphabet;
}

// Indices of `width` bits each, the lowest bits of a byte first.
uint8_t* pack_indices(std::span<const uint8_t> escaped, const uint8_t* index_of, unsigned width,
                      uint8_t* out) {
  uint64_t bits = 0;
  unsigned held = 0;
  for (const uint8_t value : escaped) {
    bits |= uint64_t{index_of[value]} << held;
    held += width;
    if (held < 32) continue;
    store_le(reinterpret_cast<std::byte*>(out), static_cast<uint32_t>(bits));
    out += 4, bits >>= 32, held -= 32;
  }
  for (; held > 0; held -= std::min(held, 8U), bits >>= 8) *out++ = static_cast<uint8_t>(bits);
  return out;
}

unsigned index_width(unsigned rare_count) {
  return static_cast<unsigned>(std::bit_width(rare_count - 1));
}
size_t indices_bytes(size_t escapes, unsigned rare_count) {
  return (escapes * index_width(rare_count) + 7) / 8;
}

// Their number, the values among them, and which each is.
uint8_t* write_escapes(std::span<const uint8_t> escaped, uint8_t* at) {
  store_le(reinterpret_cast<std::byte*>(at), static_cast<uint16_t>(escaped.size()));
  at += 2;
  std::array<bool, 256> is_rare{};
  for (const uint8_t value : escaped) is_rare[value] = true;
  uint8_t* const rare_last = at++;
  std::array<uint8_t, 256> index_of{};
  unsigned rare_count = 0;
  for (unsigned v = 0; v < 256; v++) {
    if (!is_rare[v]) continue;
    index_of[v] = static_cast<uint8_t>(rare_count++);
    *at++ = static_cast<uint8_t>(v);
  }
  if (rare_count == 0) {  // one value only: the escape is there to make two entries
    rare_count = 1;
    *at++ = 0;
  }
  *rare_last = static_cast<uint8_t>(rare_count - 1);
  return pack_indices(escaped, index_of.data(), index_width(rare_count), at);
}

}  // namespace

// --- Writer ---

struct RansWriter::Memory {
  // Of the segment at hand: its table as it is stored, its bytes as entries, those that are
  // escapes.
  std::array<uint8_t, kMaxTableBytes + kRansSegment> header;
  std::array<uint8_t, kRansSegment> entries;
  std::array<uint8_t, kRansSegment + 32> escaped;
  // Both are filled from their ends, since rANS encodes the last byte first: the tables, of which
  // escapes take at most a byte each, and the stream, below which encoders may change a few bytes,
  // and which all the rest is put in front of.
  std::array<uint8_t, kMaxPlane + kMaxSegments * kMaxTableBytes> tables;
  std::array<uint8_t, kHeadBytes + std::tuple_size_v<decltype(tables)> + 64 + kMaxPlane> out;

  RansEncodeTable start_segment(std::span<const uint8_t> segment, size_t count_every,
                                const CodecKernels& kernels, size_t& header_bytes);
};

// Chooses a segment's table, maps its bytes to entries, and writes the header.
RansEncodeTable RansWriter::Memory::start_segment(std::span<const uint8_t> segment,
                                                  size_t count_every, const CodecKernels& kernels,
                                                  size_t& header_bytes) {
  std::array<uint32_t, 256> counts;
  // Shares are what counts; a value that a sample missed becomes an escape.
  count_lines(segment, segment.size() < kRansSegment ? 1 : count_every, counts);
  Alphabet alphabet = choose_alphabet(counts.data());
  std::array<uint8_t, 256> map;
  map.fill(static_cast<uint8_t>(alphabet.size));
  for (unsigned i = 0; i < alphabet.size; i++) map[alphabet.values[i]] = static_cast<uint8_t>(i);
  const size_t escapes = kernels.map_entries(segment.data(), segment.size(), map.data(),
                                             alphabet.size, entries.data(), escaped.data());

  // Now that their number is exact, the escapes' share is.
  RansTable table;
  table.entries = alphabet.size;
  if (escapes > 0 || alphabet.size < 2) {
    const double share = static_cast<double>(escapes) / static_cast<double>(segment.size());
    double sum = 0;
    for (unsigned i = 0; i < alphabet.size; i++) sum += alphabet.shares[i];
    for (unsigned i = 0; i < alphabet.size; i++) alphabet.shares[i] *= (1 - share) / sum;
    alphabet.shares[table.entries++] = share;
  }
  normalise_shares(alphabet.shares.data(), table.entries, table.freq.data());
  CAKE_CHECK(table.assign_slots());

  uint8_t* at = header.data();
  uint8_t* const runs = at++;
  *runs = 0;
  for (unsigned i = 0; i < alphabet.size;) {
    unsigned length = 1;
    while (i + length < alphabet.size && alphabet.values[i + length] == alphabet.values[i] + length)
      length++;
    *at++ = alphabet.values[i];
    *at++ = static_cast<uint8_t>(length - 1);
    ++*runs;
    i += length;
  }
  at = std::copy_n(table.freq.begin(), alphabet.size, at);
  *at++ = table.entries > alphabet.size ? table.freq[alphabet.size] : 0;
  if (table.entries > alphabet.size) at = write_escapes({escaped.data(), escapes}, at);
  header_bytes = static_cast<size_t>(at - header.data());
  return RansEncodeTable(table);
}

RansWriter::RansWriter() : memory_(std::make_unique_for_overwrite<Memory>()) {}
RansWriter::~RansWriter() = default;

std::span<const uint8_t> RansWriter::encode(std::span<const uint8_t> plane, size_t count_every,
                                            const CodecKernels& kernels) {
  CAKE_CHECK(plane.size() <= kMaxPlane);
  Memory& memory = *memory_;
  uint8_t* const tables_end = memory.tables.data() + memory.tables.size();
  uint8_t* tables = tables_end;
  uint8_t* const end = memory.out.data() + memory.out.size();
  uint8_t* begin = end;
  RansStates states = RansStates::initial();
  for (size_t i = (plane.size() + kRansSegment - 1) / kRansSegment; i-- > 0;) {
    const size_t at = i * kRansSegment;
    const auto segment = plane.subspan(at, std::min(kRansSegment, plane.size() - at));
    size_t header_bytes = 0;
    const RansEncodeTable table = memory.start_segment(segment, count_every, kernels, header_bytes);
    tables -= header_bytes;
    std::copy_n(memory.header.data(), header_bytes, tables);
    begin = kernels.rans_encode(states, table, memory.entries.data(), segment.size(), begin);
  }
  const auto tables_bytes = static_cast<size_t>(tables_end - tables);
  begin -= kHeadBytes + tables_bytes;
  uint8_t* to = std::copy(states.low.begin(), states.low.end(), begin);
  to = std::copy(states.high.begin(), states.high.end(), to);
  store_le(reinterpret_cast<std::byte*>(to), static_cast<uint32_t>(tables_bytes));
  std::copy_n(tables, tables_bytes, to + 4);
  return {begin, end};
}

// --- Reader ---

Result<RansReader> RansReader::open(std::span<const uint8_t> encoded, size_t plane_bytes,
                                    const CodecKernels& kernels) {
  if (plane_bytes > kMaxPlane) return corrupt_rans("plane too long");
  if (encoded.size() < kHeadBytes) return corrupt_rans("truncated");
  const uint32_t tables_bytes =
      load_le32(reinterpret_cast<const std::byte*>(encoded.data()) + 2 * kRansLanes);
  if (tables_bytes > encoded.size() - kHeadBytes) return corrupt_rans("tables beyond the end");
  RansReader reader(kernels, encoded.subspan(kHeadBytes, tables_bytes),
                    encoded.subspan(kHeadBytes + tables_bytes));
  std::copy_n(encoded.begin(), kRansLanes, reader.states_.low.begin());
  std::copy_n(encoded.begin() + kRansLanes, kRansLanes, reader.states_.high.begin());
  if (std::count(reader.states_.high.begin(), reader.states_.high.end(), 0) != 0)
    return corrupt_rans("state below its bound");
  return reader;
}

Status RansReader::read_table(size_t symbols, RansTable& table, Escapes& escapes) {
  const auto take = [&](size_t bytes) -> const uint8_t* {
    if (bytes > tables_.size()) return nullptr;
    const uint8_t* const at = tables_.data();
    tables_ = tables_.subspan(bytes);
    return at;
  };
  const uint8_t* at = take(1);
  if (at == nullptr) return corrupt_rans("truncated table");
  for (unsigned runs = *at; runs > 0; runs--) {
    at = take(2);
    if (at == nullptr) return corrupt_rans("truncated table");
    const unsigned first = at[0], length = at[1] + 1U;
    if (table.entries + length > kRansEntries || first + length > 256)
      return corrupt_rans("too many entries");
    for (unsigned i = 0; i < length; i++)
      table.value[table.entries++] = static_cast<uint8_t>(first + i);
  }
  at = take(table.entries + 1);
  if (at == nullptr) return corrupt_rans("truncated table");
  std::copy_n(at, table.entries, table.freq.begin());
  if (const uint8_t escape_freq = at[table.entries]) {
    if (table.entries == kRansEntries) return corrupt_rans("too many entries");
    table.escape = table.entries++;
    table.freq[table.escape] = escape_freq;
    at = take(3);
    if (at == nullptr) return corrupt_rans("truncated table");
    escapes.count = load_le16(reinterpret_cast<const std::byte*>(at));
    escapes.rare_count = at[2] + 1U;
    if (escapes.count > symbols) return corrupt_rans("more escapes than bytes");
    at = take(escapes.rare_count);
    if (at == nullptr) return corrupt_rans("truncated table");
    escapes.rare = {at, escapes.rare_count};
    const size_t bytes = indices_bytes(escapes.count, escapes.rare_count);
    at = take(bytes);
    if (at == nullptr) return corrupt_rans("truncated escapes");
    escapes.indices = {at, bytes};
  }
  if (!table.assign_slots()) return corrupt_rans("frequencies do not add up");
  return {};
}

namespace {

// Where the bits of `where` are set; room for two more is needed.  Processors cannot foresee which
// words have any, or how many: so what may be too much is written, and does not count.
size_t list_positions(std::span<const uint32_t> where, uint16_t* positions) {
  std::array<uint16_t, kRansSegment / 32> words;  // that have any
  size_t word_count = 0;
  for (size_t word = 0; word < where.size(); word++) {
    words[word_count] = static_cast<uint16_t>(word);
    word_count += where[word] != 0;
  }
  size_t count = 0;
  for (size_t i = 0; i < word_count; i++) {
    const size_t base = size_t{32} * words[i];
    uint32_t left = where[words[i]];
    positions[count++] = static_cast<uint16_t>(base + std::countr_zero(left));
    left &= left - 1;
    constexpr uint32_t kAny = uint32_t{1} << 31;
    positions[count] = static_cast<uint16_t>(base + std::countr_zero(left | kAny));
    count += left != 0;
    for (left &= left - 1; left != 0; left &= left - 1)
      positions[count++] = static_cast<uint16_t>(base + std::countr_zero(left));
  }
  return count;
}

// Puts the escaped values where `where` says; false when these are not `count`.
bool patch(std::span<uint8_t> out, std::span<const uint32_t> where, size_t count,
           std::span<const uint8_t> rare, std::span<const uint8_t> indices) {
  std::array<uint16_t, kRansSegment + 2> positions;
  if (list_positions(where, positions.data()) != count) return false;
  std::array<uint8_t, 256> values{};
  std::copy(rare.begin(), rare.end(), values.begin());
  const unsigned width = index_width(static_cast<unsigned>(rare.size()));
  size_t most = 0, bit = 0;
  for (size_t i = 0; i < count; i++, bit += width) {
    const size_t at = bit / 8;
    unsigned bits = at < indices.size() ? indices[at] : 0;
    if (at + 1 < indices.size()) bits |= static_cast<unsigned>(indices[at + 1]) << 8;
    const size_t index = bits >> bit % 8 & ((1U << width) - 1);
    most = std::max(most, index);
    out[positions[i]] = values[index];
  }
  return most < rare.size();
}

}  // namespace

Status RansReader::next(std::span<uint8_t> out, std::span<const uint8_t> ahead) {
  // As many lines as a core waits for at a time come while as many bytes are decoded.
  constexpr size_t kPieceBytes = 2 * kKiB, kLineBytes = 64;
  RansTable table;
  Escapes escapes;
  CAKE_TRY(read_table(out.size(), table, escapes));
  std::array<uint32_t, kRansSegment / 32> where;
  const uint8_t* const end = stream_.data() + stream_.size();
  const uint8_t* at = stream_.data();
  for (size_t done = 0; done < out.size(); done += kPieceBytes) {
    const size_t size = std::min(kPieceBytes, out.size() - done);
    for (size_t line = 0; line < kPieceBytes; line += kLineBytes)
      if (done + line < ahead.size()) __builtin_prefetch(&ahead[done + line], 0, 2);
    at = kernels_->rans_decode(states_, table, at, end, &out[done], size, &where[done / 32]);
    if (at == nullptr) return corrupt_rans("truncated stream");
  }
  stream_ = {at, end};
  if (table.escape != kNoEscape && !patch(out, std::span(where).first((out.size() + 31) / 32),
                                          escapes.count, escapes.rare, escapes.indices))
    return corrupt_rans("escapes do not match");
  return {};
}

Status RansReader::finish() const {
  if (!tables_.empty() || !stream_.empty()) return corrupt_rans("bytes left over");
  if (states_ != RansStates::initial()) return corrupt_rans("wrong last state");
  return {};
}

}  // namespace cake
