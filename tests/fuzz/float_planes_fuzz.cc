// A hostile frame of float_planes: 3 bytes of plain length, then the frame.  Every set of kernels
// must read it alike, and what each of them writes of the input must be the same.
#include <algorithm>

#include "store/codec/float_planes.h"
#include "tests/support/kernel_sets.h"

using namespace cake;

namespace {

void check_hostile(ByteSpan frame, size_t length) {
  Buffer expected(length), plain(length);
  const Status first =
      FloatPlanesCodec(EntropyCoder::rans, scalar_kernels()).decode(frame, expected);
  CAKE_CHECK(first || first.error().code == Errc::corrupt);
  for (const CodecKernels* kernels : kernel_sets()) {
    const Status status = FloatPlanesCodec(EntropyCoder::rans, *kernels).decode(frame, plain);
    CAKE_CHECK(status.ok() == first.ok());
    CAKE_CHECK(!status || plain == expected);
  }
}

void check_round_trip(ByteSpan input, Dtype dtype, EntropyCoder coder) {
  const auto expected = FloatPlanesCodec(coder, scalar_kernels()).encode(input, dtype);
  CAKE_CHECK(expected.ok());
  for (const CodecKernels* kernels : kernel_sets()) {
    const FloatPlanesCodec codec(coder, *kernels);
    const auto encoded = codec.encode(input, dtype);
    CAKE_CHECK(encoded.ok() && *encoded == *expected);
    if (!*encoded) continue;
    Buffer plain(input.size());
    CAKE_CHECK(codec.decode(**encoded, plain).ok());
    CAKE_CHECK(std::equal(plain.begin(), plain.end(), input.begin()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan input(reinterpret_cast<const std::byte*>(data), size);
  if (size < 3) return 0;
  const size_t length = data[0] | data[1] << 8 | (data[2] & 0x0f) << 16;
  check_hostile(input.subspan(3), length);
  constexpr Dtype kDtypes[] = {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f8_e4m3, Dtype::i8};
  check_round_trip(input, kDtypes[size % 5], size % 2 ? EntropyCoder::rans : EntropyCoder::zstd);
  return 0;
}
