#include "store/codec/zstd.h"

// For ZSTD_c_literalCompressionMode.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

#include <array>
#include <memory>

#include "store/codec/sample.h"

namespace cake {

namespace {

// Headers, configuration and integers repeat strings that a search finds.
constexpr int kBytesLevel = 3;
// Weights hold no matches worth searching: level 3 gives the same size more slowly (measured).
constexpr int kFloatLevel = 1;

// The sample: slices this long, evenly spread.  Together 32 KiB, so a 1 MiB chunk is seen at every
// 64 KiB; what repeats only over longer distances is missed.
constexpr size_t kProbeSliceBytes = 2 * kKiB;
constexpr size_t kProbeSlices = 16;
constexpr size_t kProbedFrom = 128 * kKiB;

// The sample is too short to show every match, so half that gain there is worth an attempt.
constexpr size_t promising_bytes(size_t sample_bytes) {
  return sample_bytes - sample_bytes * 75 / 10000;
}

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
// A context is a few hundred KiB of tables; one a thread is kept, since making it costs more than
// encoding a small chunk.
ZSTD_CCtx* compression_context() {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  return context.get();
}
ZSTD_DCtx* decompression_context() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  return context.get();
}

int level_for(Dtype dtype) {
  switch (dtype) {
    case Dtype::f4:
    case Dtype::f6_e2m3:
    case Dtype::f6_e3m2:
    case Dtype::f8_e5m2:
    case Dtype::f8_e4m3:
    case Dtype::f8_e8m0:
    case Dtype::f8_e4m3fnuz:
    case Dtype::f8_e5m2fnuz:
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::f32:
    case Dtype::c64:
    case Dtype::f64:
      return kFloatLevel;
    default:
      return kBytesLevel;
  }
}

// Compresses into `out`; nullopt when it does not fit.
Result<std::optional<size_t>> compress_into(ByteSpan plain, int level, MutableByteSpan out) {
  ZSTD_CCtx* context = compression_context();
  if (!context) return Error{Errc::io, "zstd: no memory for a context"};
  const size_t size =
      ZSTD_compressCCtx(context, out.data(), out.size(), plain.data(), plain.size(), level);
  if (!ZSTD_isError(size)) return size;
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return std::nullopt;
  return Error{Errc::io, cat("zstd: ", ZSTD_getErrorName(size))};
}

using Probe = std::array<std::byte, kProbeSliceBytes * kProbeSlices>;

void take_probe(ByteSpan plain, Probe& sample) {
  const size_t stride = (plain.size() - kProbeSliceBytes) / (kProbeSlices - 1);
  for (size_t i = 0; i < kProbeSlices; i++)
    std::memcpy(&sample[i * kProbeSliceBytes], &plain[i * stride], kProbeSliceBytes);
}

Result<bool> is_promising(ByteSpan plain) {
  Probe sample;
  take_probe(plain, sample);
  std::array<std::byte, promising_bytes(kProbeSliceBytes * kProbeSlices)> encoded;
  return CAKE_TRY(compress_into(sample, kFloatLevel, encoded)).has_value();
}

Error corrupt_zstd(std::string_view reason) {
  return Error{Errc::corrupt, cat("zstd: ", reason)};
}

// What RFC 8878, 3.1.1.1 says of the window; the library's own reading of it is not public API.
// `frame` begins with the magic number.
std::optional<uint64_t> window_bytes(ByteSpan frame, uint64_t content_bytes) {
  constexpr unsigned kSingleSegment = 0x20;
  const auto descriptor = static_cast<unsigned>(frame[4]);
  if (descriptor & kSingleSegment) return content_bytes;
  if (frame.size() < 6) return std::nullopt;
  const auto window = static_cast<unsigned>(frame[5]);
  const uint64_t base = uint64_t{1} << (10 + (window >> 3));
  return base + base / 8 * (window & 7);
}

// One frame, exactly as long as `encoded`, of exactly `plain_bytes`.
Status check_frame(ByteSpan encoded, uint64_t plain_bytes) {
  if (encoded.size() < 5 || load_le32(encoded.data()) != ZSTD_MAGICNUMBER)
    return corrupt_zstd("not a frame");
  const unsigned long long content = ZSTD_getFrameContentSize(encoded.data(), encoded.size());
  if (content == ZSTD_CONTENTSIZE_ERROR) return corrupt_zstd("bad frame header");
  if (content != plain_bytes) return corrupt_zstd("the frame holds another length than the chunk");
  const std::optional<uint64_t> window = window_bytes(encoded, plain_bytes);
  if (!window || *window > plain_bytes) return corrupt_zstd("window beyond the chunk");
  if (ZSTD_findFrameCompressedSize(encoded.data(), encoded.size()) != encoded.size())
    return corrupt_zstd("truncated, or bytes after the frame");
  return {};
}

}  // namespace

Result<std::optional<Buffer>> ZstdCodec::encode(ByteSpan plain, Dtype dtype) const {
  if (plain.size() >= kProbedFrom && !CAKE_TRY(is_promising(plain))) return std::nullopt;
  // Given no more room than is worth taking, the library itself stops when there is no gain.
  Buffer encoded(worthwhile_bytes(plain.size()));
  const std::optional<size_t> size = CAKE_TRY(compress_into(plain, level_for(dtype), encoded));
  if (!size) return std::nullopt;
  encoded.resize(*size);
  return encoded;
}

Status ZstdCodec::decode(ByteSpan encoded, MutableByteSpan plain) const {
  return zstd_decode(encoded, plain);
}

Status zstd_decode(ByteSpan encoded, MutableByteSpan plain) {
  CAKE_TRY(check_frame(encoded, plain.size()));
  ZSTD_DCtx* context = decompression_context();
  if (!context) return Error{Errc::io, "zstd: no memory for a context"};
  const size_t size =
      ZSTD_decompressDCtx(context, plain.data(), plain.size(), encoded.data(), encoded.size());
  if (ZSTD_isError(size)) return corrupt_zstd(ZSTD_getErrorName(size));
  if (size != plain.size()) return corrupt_zstd("the frame is shorter than it says");
  return {};
}

namespace {

// Literals only: the search's steps are so long that it ends at once, and each block of 128 KiB
// gets a Huffman table of its own.  `literal mode` makes zstd code literals all the same.
void forgo_matches(ZSTD_CCtx* context) {
  ZSTD_CCtx_setParameter(context, ZSTD_c_strategy, ZSTD_fast);
  ZSTD_CCtx_setParameter(context, ZSTD_c_targetLength, ZSTD_TARGETLENGTH_MAX);
  ZSTD_CCtx_setParameter(context, ZSTD_c_minMatch, 7);
  ZSTD_CCtx_setParameter(context, ZSTD_c_hashLog, ZSTD_HASHLOG_MIN);
  ZSTD_CCtx_setParameter(context, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman);
}

}  // namespace

Result<std::optional<size_t>> zstd_encode_plane(ByteSpan plane, bool matches, MutableByteSpan out) {
  if (matches) return compress_into(plane, kFloatLevel, out);
  ZSTD_CCtx* context = compression_context();
  if (!context) return Error{Errc::io, "zstd: no memory for a context"};
  ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters);
  forgo_matches(context);
  const size_t size = ZSTD_compress2(context, out.data(), out.size(), plane.data(), plane.size());
  ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters);
  if (!ZSTD_isError(size)) return size;
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return std::nullopt;
  return Error{Errc::io, cat("zstd: ", ZSTD_getErrorName(size))};
}

Result<double> zstd_estimate(ByteSpan plain) {
  if (plain.size() < kProbedFrom) return 1.0;
  Probe sample;
  take_probe(plain, sample);
  Probe encoded;
  const std::optional<size_t> size = CAKE_TRY(compress_into(sample, kFloatLevel, encoded));
  return size ? static_cast<double>(*size) / static_cast<double>(sample.size()) : 1.0;
}

}  // namespace cake
