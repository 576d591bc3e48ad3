// A hostile plane coded with rANS: 3 bytes of plain length, then the plane.  Every set of kernels
// must read it alike.  Also round trips the input.
#include <algorithm>

#include "store/codec/plane.h"
#include "tests/support/kernel_sets.h"

using namespace cake;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const std::span<const uint8_t> input(data, size);
  const size_t length = data[0] | data[1] << 8 | (data[2] & 0x01) << 16;
  std::vector<uint8_t> expected(length), plain(length);
  const Status first =
      decode_plane(PlaneCoding::rans, input.subspan(3), scalar_kernels(), expected);
  CAKE_CHECK(first || first.error().code == Errc::corrupt);
  for (const CodecKernels* kernels : kernel_sets()) {
    const Status status = decode_plane(PlaneCoding::rans, input.subspan(3), *kernels, plain);
    CAKE_CHECK(status.ok() == first.ok());
    CAKE_CHECK(!status || plain == expected);
  }

  static RansWriter writer;
  for (const CodecKernels* kernels : kernel_sets()) {
    std::vector<uint8_t> decoded(size);
    const std::span<const uint8_t> encoded = writer.encode(input, 8, *kernels);
    CAKE_CHECK(decode_plane(PlaneCoding::rans, encoded, *kernels, decoded).ok());
    CAKE_CHECK(std::equal(decoded.begin(), decoded.end(), input.begin()));
  }
  return 0;
}
