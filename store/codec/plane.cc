#include "store/codec/plane.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "store/codec/histogram.h"
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

// How far apart the lines are that are counted of a plane, so that they are 8 KiB in all.
size_t lines_apart(size_t plane_bytes) {
  return std::clamp<size_t>(plane_bytes / (8 * kKiB), 1, 64);
}

bool is_constant(std::span<const uint8_t> plane) {
  return std::memcmp(plane.data(), plane.data() + 1, plane.size() - 1) == 0;
}

// The plane itself where it does not fit less.
Result<EncodedPlane> store_zstd(std::span<const uint8_t> plane, bool matches, PlaneMemory& memory) {
  const std::span<uint8_t> room(memory.zstd.data(), plane.size());
  const auto size =
      CAKE_TRY(zstd_encode_plane(std::as_bytes(plane), matches, std::as_writable_bytes(room)));
  if (!size) return EncodedPlane{PlaneCoding::raw, plane};
  return EncodedPlane{PlaneCoding::zstd, room.first(*size)};
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
  constexpr size_t kSlotted = kRansEntries - 1;
  std::array<uint32_t, 256> seen;
  const auto end = std::copy_if(counts.begin(), counts.end(), seen.begin(),
                                [](uint32_t count) { return count > 0; });
  double total = 0;
  for (auto count = seen.begin(); count != end; ++count) total += *count;
  if (total == 0) return 0;
  if (end - seen.begin() > static_cast<ptrdiff_t>(kSlotted))
    std::nth_element(seen.begin(), seen.begin() + kSlotted, end, std::greater<>());
  double bits = 0, escaped = 0;
  unsigned rare = 0;
  for (auto count = seen.begin(); count != end; ++count) {
    const double share = *count / total;
    if (count - seen.begin() < static_cast<ptrdiff_t>(kSlotted) && share >= kRansWorthASlot) {
      bits -= share * std::log2(std::max(static_cast<float>(share), 1.0F / kRansSlots));
    } else {
      escaped += share;
      rare++;
    }
  }
  if (escaped > 0) bits += escaped * (std::ceil(std::log2(rare)) - std::log2(escaped));
  return bits;
}

Result<EncodedPlane> encode_plane(std::span<const uint8_t> plane, EntropyCoder coder,
                                  size_t count_every, const CodecKernels& kernels,
                                  PlaneMemory& memory) {
  EncodedPlane best{PlaneCoding::raw, plane};
  if (plane.empty()) return best;
  std::array<uint32_t, 256> counts;
  count_lines(plane, lines_apart(plane.size()), counts);
  uint64_t total = 0;
  uint32_t most = 0;
  for (const uint32_t count : counts) total += count, most = std::max(most, count);
  if (most == total && is_constant(plane))
    return EncodedPlane{PlaneCoding::constant, plane.first(1)};
  const double bits = entropy_bits(counts);
  if (bits > kRawAboveBits) return best;

  const auto keep = [&](const EncodedPlane& candidate) {
    if (candidate.bytes.size() < best.bytes.size()) best = candidate;
  };
  // Tables and states of rans do not pay for a short plane, nor its escapes for one of more than 63
  // values of like frequency; zstd's Huffman codes lose about a hundredth.
  const auto bytes = static_cast<double>(plane.size()) / 8;
  const bool rans_fits = bytes * rans_bits(counts) + 320 < 1.01 * bytes * bits + 40;
  const bool has_runs = static_cast<double>(most) > kRunsAboveShare * static_cast<double>(total);
  const bool wants_rans = coder == EntropyCoder::rans && rans_fits;
  if (has_runs || !wants_rans) keep(CAKE_TRY(store_zstd(plane, has_runs, memory)));
  if (has_runs || wants_rans)
    keep({PlaneCoding::rans, memory.rans.encode(plane, count_every, kernels)});
  return best;
}

Result<EncodedPlane> encode_matching_plane(std::span<const uint8_t> plane, PlaneMemory& memory) {
  return store_zstd(plane, true, memory);
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
