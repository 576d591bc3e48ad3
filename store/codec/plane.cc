#include "store/codec/plane.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "store/codec/zstd.h"

namespace cake {

namespace {

// Above this a plane stays as it is: what could be gained is less than the coder's own loss, and a
// raw plane is read in place.
constexpr double kRawAboveBits = 7.9;
// A value this frequent means runs, which order 0 does not see.
constexpr double kRunsAboveShare = 0.9;

Error corrupt_plane(std::string_view reason) {
  return Error{Errc::corrupt, cat("plane: ", reason)};
}

// Counts every 32nd line of 64 bytes, or more of a short plane.
void count_lines(std::span<const uint8_t> plane, std::span<uint32_t, 256> counts) {
  constexpr size_t kLine = 64;
  const size_t stride = std::clamp<size_t>(plane.size() / (8 * kKiB), 1, 32) * kLine;
  // Equal neighbours would wait for each other in one table.
  uint32_t partial[4][256] = {};
  for (size_t at = 0; at < plane.size(); at += stride) {
    const std::span<const uint8_t> line = plane.subspan(at, std::min(kLine, plane.size() - at));
    for (size_t i = 0; i < line.size(); i++) partial[i % 4][line[i]]++;
  }
  for (size_t v = 0; v < 256; v++)
    counts[v] = partial[0][v] + partial[1][v] + partial[2][v] + partial[3][v];
}

bool is_constant(std::span<const uint8_t> plane) {
  return std::memcmp(plane.data(), plane.data() + 1, plane.size() - 1) == 0;
}

std::optional<EncodedPlane> store_raw(std::span<const uint8_t> plane, std::span<uint8_t> out) {
  if (plane.size() > out.size()) return std::nullopt;
  std::copy(plane.begin(), plane.end(), out.begin());
  return EncodedPlane{PlaneCoding::raw, plane.size()};
}

Result<std::optional<EncodedPlane>> store_zstd(std::span<const uint8_t> plane, bool matches,
                                               std::span<uint8_t> out) {
  const auto size = CAKE_TRY(
      zstd_encode_plane(std::as_bytes(plane), matches,
                        std::as_writable_bytes(out.first(std::min(out.size(), plane.size())))));
  if (!size) return std::nullopt;
  return EncodedPlane{PlaneCoding::zstd, *size};
}

std::optional<EncodedPlane> store_rans(std::span<const uint8_t> plane, const CodecKernels& kernels,
                                       RansWriter& rans, std::span<uint8_t> out) {
  const auto size = rans.encode(plane, out.first(std::min(out.size(), plane.size())), kernels);
  if (!size) return std::nullopt;
  return EncodedPlane{PlaneCoding::rans, *size};
}

}  // namespace

double entropy_bits(std::span<const uint32_t, 256> counts) {
  double total = 0, sum = 0;
  unsigned seen = 0;
  for (const uint32_t count : counts) {
    if (count == 0) continue;
    seen++;
    total += count;
    sum += count * std::log2(static_cast<float>(count));
  }
  if (total == 0) return 0;
  // A sample shows less than there is (Miller and Madow).
  const double unseen = (seen - 1) / (2 * total * 0.6931);
  return std::min(8.0, std::log2(total) - sum / total + unseen);
}

double rans_bits(std::span<const uint32_t, 256> counts) {
  std::array<uint32_t, 256> sorted;
  std::partial_sort_copy(counts.begin(), counts.end(), sorted.begin(), sorted.end(),
                         std::greater<>());
  double total = 0;
  for (const uint32_t count : sorted) total += count;
  if (total == 0) return 0;
  constexpr size_t kSlotted = kRansEntries - 1;
  double bits = 0, escaped = 0;
  unsigned rare = 0;
  for (size_t i = 0; i < sorted.size() && sorted[i] > 0; i++) {
    const double share = sorted[i] / total;
    if (i < kSlotted && share >= kRansWorthASlot) {
      bits -= share * std::log2(std::max(share, 1.0 / kRansSlots));
    } else {
      escaped += share;
      rare++;
    }
  }
  if (escaped > 0) bits += escaped * (std::ceil(std::log2(rare)) - std::log2(escaped));
  return bits;
}

Result<std::optional<EncodedPlane>> encode_plane(std::span<const uint8_t> plane, EntropyCoder coder,
                                                 const CodecKernels& kernels, RansWriter& rans,
                                                 std::span<uint8_t> out) {
  if (plane.empty()) return EncodedPlane{PlaneCoding::raw, 0};
  std::array<uint32_t, 256> counts;
  count_lines(plane, counts);
  uint64_t total = 0;
  uint32_t most = 0;
  for (const uint32_t count : counts) total += count, most = std::max(most, count);
  if (most == total && is_constant(plane)) {
    if (out.empty()) return std::nullopt;
    out[0] = plane[0];
    return EncodedPlane{PlaneCoding::constant, 1};
  }
  const double bits = entropy_bits(counts);
  if (bits > kRawAboveBits) return store_raw(plane, out);

  std::optional<EncodedPlane> best;
  const auto keep = [&](std::optional<EncodedPlane> candidate) {
    if (candidate && (!best || candidate->bytes < best->bytes)) best = candidate;
  };
  // Tables and states of rans do not pay for a short plane, nor its escapes for one of more than 63
  // values of like frequency; zstd's Huffman codes lose about a hundredth.
  const auto bytes = static_cast<double>(plane.size()) / 8;
  const bool rans_fits = bytes * rans_bits(counts) + 320 < 1.01 * bytes * bits + 40;
  if (static_cast<double>(most) > kRunsAboveShare * static_cast<double>(total)) {
    Buffer matched(plane.size());
    const std::span<uint8_t> room(reinterpret_cast<uint8_t*>(matched.data()), matched.size());
    keep(CAKE_TRY(store_zstd(plane, true, room)));
    keep(store_rans(plane, kernels, rans, out));
    if (best && best->coding == PlaneCoding::zstd) {
      if (best->bytes > out.size()) return std::nullopt;
      std::memcpy(out.data(), matched.data(), best->bytes);
    }
  } else if (coder == EntropyCoder::rans && rans_fits) {
    keep(store_rans(plane, kernels, rans, out));
  } else {
    keep(CAKE_TRY(store_zstd(plane, false, out)));
  }
  if (!best) return store_raw(plane, out);
  return best;
}

Result<std::optional<EncodedPlane>> encode_matching_plane(std::span<const uint8_t> plane,
                                                          std::span<uint8_t> out) {
  return store_zstd(plane, true, out);
}

namespace {

Status decode_rans(std::span<const uint8_t> encoded, const CodecKernels& kernels,
                   std::span<uint8_t> plane) {
  RansReader reader = CAKE_TRY(RansReader::open(encoded, plane.size(), kernels));
  for (size_t at = 0; at < plane.size(); at += kRansSegment)
    CAKE_TRY(reader.next(plane.subspan(at, std::min(kRansSegment, plane.size() - at))));
  return reader.finish();
}

}  // namespace

Status decode_plane(PlaneCoding coding, std::span<const uint8_t> encoded,
                    const CodecKernels& kernels, std::span<uint8_t> plane) {
  switch (coding) {
    case PlaneCoding::raw:
      if (encoded.size() != plane.size()) return corrupt_plane("wrong length");
      std::copy(encoded.begin(), encoded.end(), plane.begin());
      return {};
    case PlaneCoding::constant:
      if (encoded.size() != 1) return corrupt_plane("a constant of another length than 1");
      std::fill(plane.begin(), plane.end(), encoded[0]);
      return {};
    case PlaneCoding::zstd:
      return zstd_decode(std::as_bytes(encoded), std::as_writable_bytes(plane));
    case PlaneCoding::rans:
      return decode_rans(encoded, kernels, plane);
  }
  return corrupt_plane("unknown coding");
}

}  // namespace cake
