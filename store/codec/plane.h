// One plane of a frame: how its bytes are stored, chosen by a sample.
#pragma once

#include <array>
#include <span>

#include "store/base/bytes.h"
#include "store/base/result.h"
#include "store/codec/kernels.h"
#include "store/codec/rans_plane.h"

namespace cake {

// On disk: values are fixed and listed in man/cakefs-store.5.
enum class PlaneCoding : uint8_t { raw = 0, constant = 1, zstd = 2, rans = 3 };

// What a writer uses where entropy coding pays.
enum class EntropyCoder : uint8_t { zstd, rans };

// Bits a byte that the bytes of a sample need at best, estimated; `counts` of each value.
double entropy_bits(std::span<const uint32_t, 256> counts);
// The same, with the coder's own losses.
double rans_bits(std::span<const uint32_t, 256> counts);

// What encoding planes of up to 1 MiB takes; one a thread.
struct PlaneMemory {
  RansWriter rans;
  std::array<uint8_t, kMiB> zstd;
};
// The bytes are the plane's own, or the memory's until it is used again.
struct EncodedPlane {
  PlaneCoding coding = PlaneCoding::raw;
  std::span<const uint8_t> bytes;
};
// As whatever is smallest by estimate, and never larger than the plane.  For rans `count_every` of
// RansWriter.
Result<EncodedPlane> encode_plane(std::span<const uint8_t> plane, EntropyCoder coder,
                                  size_t count_every, const CodecKernels& kernels,
                                  PlaneMemory& memory);
// With zstd, matches included.
Result<EncodedPlane> encode_matching_plane(std::span<const uint8_t> plane, PlaneMemory& memory);

// Decodes a whole plane; `encoded` is hostile.
Status decode_plane(PlaneCoding coding, std::span<const uint8_t> encoded,
                    const CodecKernels& kernels, std::span<uint8_t> plane);

}  // namespace cake
