#include "store/codec/transform.h"

namespace cake {

TransformShape transform_shape(Transform transform) {
  switch (transform) {
    case Transform::bytes:
      return {1, 1, {8}};
    case Transform::bf16:
      return {2, 3, {8, 1, 7}};
    case Transform::f32:
      return {4, 5, {8, 1, 7, 8, 8}};
    case Transform::f16:
      return {2, 3, {8, 2, 8}};
    case Transform::fp8:
    case Transform::int8:
      return {1, 2, {8, 2}};
    case Transform::f32_from_f16:
      return {4, 3, {8, 2, 8}};
  }
  return {};
}

namespace {

// The 16-bit halves of a block of F32.
using Halves = std::array<uint8_t, 2 * kBlockElements>;

}  // namespace

bool split_block(const CodecKernels& kernels, Transform transform, uint8_t bias, const uint8_t* in,
                 size_t count, const PlanePointers& planes) {
  switch (transform) {
    case Transform::bytes:
      std::memcpy(planes[0], in, count);
      break;
    case Transform::bf16:
      kernels.split_bf16(in, count, bias, planes[0], planes[1], planes[2]);
      break;
    case Transform::f32: {
      Halves upper;
      kernels.split_f32(in, count, upper.data(), planes[3], planes[4]);
      kernels.split_bf16(upper.data(), count, bias, planes[0], planes[1], planes[2]);
      break;
    }
    case Transform::f16:
      kernels.split_f16(in, count, planes[0], planes[1], planes[2]);
      break;
    case Transform::fp8:
      kernels.split_fp8(in, count, planes[0], planes[1]);
      break;
    case Transform::int8:
      kernels.split_int8(in, count, planes[0], planes[1]);
      break;
    case Transform::f32_from_f16: {
      Halves halves;
      if (!kernels.narrow_f32(in, count, halves.data())) return false;
      kernels.split_f16(halves.data(), count, planes[0], planes[1], planes[2]);
      break;
    }
  }
  return true;
}

void merge_block(const CodecKernels& kernels, Transform transform, uint8_t bias,
                 const ConstPlanePointers& planes, size_t count, uint8_t* out) {
  switch (transform) {
    case Transform::bytes:
      std::memcpy(out, planes[0], count);
      break;
    case Transform::bf16:
      kernels.merge_bf16(planes[0], planes[1], planes[2], count, bias, out);
      break;
    case Transform::f32: {
      Halves upper;
      kernels.merge_bf16(planes[0], planes[1], planes[2], count, bias, upper.data());
      kernels.merge_f32(upper.data(), planes[3], planes[4], count, out);
      break;
    }
    case Transform::f16:
      kernels.merge_f16(planes[0], planes[1], planes[2], count, out);
      break;
    case Transform::fp8:
      kernels.merge_fp8(planes[0], planes[1], count, out);
      break;
    case Transform::int8:
      kernels.merge_int8(planes[0], planes[1], count, out);
      break;
    case Transform::f32_from_f16: {
      Halves halves;
      kernels.merge_f16(planes[0], planes[1], planes[2], count, halves.data());
      kernels.widen_f16(halves.data(), count, out);
      break;
    }
  }
}

}  // namespace cake
