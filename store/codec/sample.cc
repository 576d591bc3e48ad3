#include "store/codec/sample.h"

#include <algorithm>
#include <array>

#include "store/codec/histogram.h"
#include "store/codec/plane.h"
#include "store/codec/zstd.h"

namespace cake {

namespace {

// Slices of two cache lines, evenly spread: 8 KiB of a chunk, of which 2 show noise.
constexpr size_t kSliceBytes = 128;
constexpr size_t kSlices = 64;
constexpr size_t kNoiseSlices = 16;
constexpr size_t kSampleBytes = kSlices * kSliceBytes;
constexpr size_t kSampledFrom = 64 * kKiB;
// The sample errs by less than this, in bits a byte.
constexpr double kDoubtBits = 0.02;

using Sample = std::array<uint8_t, kSampleBytes>;

// All of a small chunk's beginning, or slices of a large one; returns how much.
size_t take_sample(ByteSpan plain, size_t slices, Sample& sample) {
  if (plain.size() < kSampledFrom) {
    const size_t size = std::min(plain.size(), kSampleBytes);
    std::memcpy(sample.data(), plain.data(), size);
    return size;
  }
  // Slices begin at multiples of an element.
  const size_t stride = (plain.size() - kSliceBytes) / (slices - 1) & ~size_t{63};
  for (size_t i = 0; i < slices; i++)
    std::memcpy(&sample[i * kSliceBytes], &plain[i * stride], kSliceBytes);
  return slices * kSliceBytes;
}

// The bias for which most exponents lie in [bias, bias + 128), modulo 256; 0 where that holds all.
uint8_t choose_bias(std::span<const uint8_t> sample, size_t element_bytes) {
  std::array<uint32_t, 256> counts{};
  for (size_t at = element_bytes - 2; at + 2 <= sample.size(); at += element_bytes)
    counts[(sample[at + 1] << 1 | sample[at] >> 7) & 0xff]++;
  uint32_t inside = 0;
  for (size_t i = 0; i < 128; i++) inside += counts[i];
  uint32_t best = inside;
  uint8_t bias = 0;
  for (size_t i = 1; i < 256; i++) {
    inside += counts[(i + 127) % 256] - counts[i - 1];
    if (inside > best) best = inside, bias = static_cast<uint8_t>(i);
  }
  return bias;
}

// The lower two bytes of every F32 are zero: a BF16, widened.
bool has_zero_halves(std::span<const uint8_t> sample) {
  for (size_t at = 0; at + 4 <= sample.size(); at += 4)
    if (sample[at] != 0 || sample[at + 1] != 0) return false;
  return true;
}

// Bytes that the planes of the sample would take, by their frequencies.
double estimate_bytes(const CodecKernels& kernels, const Plan& plan, const Sample& sample,
                      size_t size) {
  const TransformShape shape = transform_shape(plan.transform);
  const size_t count = size / shape.element_bytes;
  std::array<std::array<uint8_t, kSampleBytes>, kMaxPlanes> memory;
  PlanePointers planes{};
  for (unsigned i = 0; i < shape.planes; i++) planes[i] = memory[i].data();
  if (!split_block(kernels, plan.transform, plan.bias, sample.data(), count, planes))
    return static_cast<double>(size);
  double bytes = 0;
  for (unsigned i = 0; i < shape.planes; i++) {
    std::array<uint32_t, 256> counts;
    const size_t packed = packed_bytes(shape.bits[i], count);
    count_lines({planes[i], packed}, 1, counts);
    bytes += static_cast<double>(packed) * entropy_bits(counts) / 8;
  }
  return bytes;
}

// Cheap and sure enough for noise: were some byte values more frequent than others, pairs of equal
// ones would be too.  (Rényi's entropy of order 2 is at most Shannon's.)
bool is_noise(const Sample& sample, size_t size, size_t element_bytes) {
  for (size_t lane = 0; lane < element_bytes; lane++) {
    std::array<uint32_t, 256> counts{};
    for (size_t at = lane; at < size; at += element_bytes) counts[sample[at]]++;
    const size_t elements = size / element_bytes;
    const auto total = static_cast<double>(elements);
    double pairs = 0;
    for (const uint32_t count : counts) pairs += static_cast<double>(count) * (count - 1.0);
    // 1/256 for noise, with a standard deviation of a hundredth (bytes) to a twentieth (F32) of it;
    // bytes that gain 1.5 % have 1.15 times as many.
    if (pairs > total * (total - 1) * (1.0 / 256) * 1.15) return false;
  }
  return true;
}

}  // namespace

Transform transform_for(Dtype dtype) {
  switch (dtype) {
    case Dtype::bf16:
      return Transform::bf16;
    case Dtype::f16:
      return Transform::f16;
    case Dtype::f32:
    case Dtype::c64:
      return Transform::f32;
    case Dtype::f8_e4m3:
    case Dtype::f8_e5m2:
    case Dtype::f8_e4m3fnuz:
    case Dtype::f8_e5m2fnuz:
      return Transform::fp8;
    case Dtype::i8:
    case Dtype::u8:
      return Transform::int8;
    default:
      return Transform::bytes;
  }
}

Result<std::optional<Plan>> make_plan(const CodecKernels& kernels, ByteSpan plain, Dtype dtype) {
  Plan plan;
  plan.transform = transform_for(dtype);
  const size_t element_bytes = transform_shape(plan.transform).element_bytes;
  if (plain.size() < element_bytes) return std::nullopt;
  Sample sample;
  if (plain.size() >= kSampledFrom &&
      is_noise(sample, take_sample(plain, kNoiseSlices, sample), element_bytes))
    return std::nullopt;
  const size_t size = take_sample(plain, kSlices, sample) / element_bytes * element_bytes;

  if (plan.transform == Transform::bf16 || plan.transform == Transform::f32)
    plan.bias = plan.other_bias = choose_bias({sample.data(), size}, element_bytes);
  if (plan.transform == Transform::f32 && !has_zero_halves({sample.data(), size})) {
    std::array<uint8_t, kSampleBytes> halves;
    if (kernels.narrow_f32(sample.data(), size / 4, halves.data()))
      plan.transform = Transform::f32_from_f16;
  }
  if (plain.size() < kSampledFrom) return plan;
  const double bytes = estimate_bytes(kernels, plan, sample, size);
  if (plan.transform == Transform::int8 || plan.transform == Transform::bytes) {
    const double matched = CAKE_TRY(zstd_estimate(plain)) * static_cast<double>(size);
    if (matched < 0.99 * bytes) {
      plan.transform = Transform::bytes;
      plan.has_matches = true;
      return plan;
    }
  }
  const double doubt = kDoubtBits / 8 * static_cast<double>(size);
  if (bytes - doubt > static_cast<double>(worthwhile_bytes(size))) return std::nullopt;
  return plan;
}

}  // namespace cake
