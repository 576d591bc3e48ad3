// What a look at a few hundredths of a chunk tells the writer.
#pragma once

#include <optional>

#include "store/base/bytes.h"
#include "store/base/result.h"
#include "store/codec/transform.h"

namespace cake {

// Encoding that gains less than 1.5 % is not worth decoding on every read.
constexpr size_t worthwhile_bytes(size_t plain_bytes) {
  return plain_bytes - plain_bytes / 1000 * 15 - plain_bytes % 1000 * 15 / 1000;
}

struct Plan {
  Transform transform = Transform::bytes;
  uint8_t bias = 0;          // subtracted from exponents (bf16, f32)
  bool has_matches = false;  // bytes: repeated strings gain more than frequencies
  uint8_t other_bias = 0;

  // When the chunk's elements do not fit the transform after all.
  Plan otherwise() const { return {Transform::f32, other_bias, false, other_bias}; }
};

Transform transform_for(Dtype dtype);

// nullopt when nothing is to be gained, for certain enough.
Result<std::optional<Plan>> make_plan(const CodecKernels& kernels, ByteSpan plain, Dtype dtype);

}  // namespace cake
