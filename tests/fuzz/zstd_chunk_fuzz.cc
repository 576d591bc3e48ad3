// A hostile encoded chunk: 4 bytes of plain length, then the frame.  Also round trips the input.
#include <algorithm>

#include "store/codec/codec.h"

using namespace cake;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan input(reinterpret_cast<const std::byte*>(data), size);
  const Codec& zstd = **find_codec(CodecId::zstd);
  if (size >= 4) {
    const uint32_t length = load_le32(input.data()) % (kMiB + 1);
    Buffer plain(length);
    const Status status = zstd.decode(input.subspan(4), plain);
    CAKE_CHECK(status || status.error().code == Errc::corrupt);
  }
  const auto encoded = zstd.encode(input, size % 2 ? Dtype::bytes : Dtype::bf16);
  CAKE_CHECK(encoded.ok());
  if (!*encoded) return 0;
  Buffer plain(size);
  CAKE_CHECK(zstd.decode(**encoded, plain).ok());
  CAKE_CHECK(std::equal(plain.begin(), plain.end(), input.begin()));
  return 0;
}
