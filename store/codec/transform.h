// How the elements of a chunk become planes: bit moves only, so every pattern survives.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "store/codec/kernels.h"
#include "store/codec/packing.h"
#include "store/format/layout.h"

namespace cake {

// On disk: values are fixed and listed in man/cakefs-store.5.
enum class Transform : uint8_t {
  bytes = 0,
  bf16 = 1,
  f32 = 2,
  f16 = 3,
  fp8 = 4,
  int8 = 5,
  f32_from_f16 = 6,
};

constexpr size_t kMaxPlanes = 5;

struct TransformShape {
  unsigned element_bytes = 0;  // 0: no such transform
  unsigned planes = 0;
  // Bits of an element in each plane; the planes' order is that of the kernels' arguments.
  std::array<uint8_t, kMaxPlanes> bits{};
};
TransformShape transform_shape(Transform transform);

// Pointers to the same block in every plane.
using PlanePointers = std::array<uint8_t*, kMaxPlanes>;
using ConstPlanePointers = std::array<const uint8_t*, kMaxPlanes>;

// At most a block.  False when the elements cannot be had this way (f32_from_f16 only).
bool split_block(const CodecKernels& kernels, Transform transform, uint8_t bias, const uint8_t* in,
                 size_t count, const PlanePointers& planes);
void merge_block(const CodecKernels& kernels, Transform transform, uint8_t bias,
                 const ConstPlanePointers& planes, size_t count, uint8_t* out);

}  // namespace cake
