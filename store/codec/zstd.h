// One zstd frame (RFC 8878) a chunk.
#pragma once

#include "store/codec/codec.h"

namespace cake {

// The frame states the plain length, has no checksum (every read checks one of its own), no
// dictionary, and a window within the chunk; decode refuses any other.
class ZstdCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::zstd; }
  // A chunk of 128 KiB or more is sampled first: one that does not compress costs about a hundredth
  // of an attempt.
  Result<std::optional<Buffer>> encode(ByteSpan plain, Dtype dtype) const override;
  // Writes into `plain` only and allocates nothing but a context a thread, once.
  Status decode(ByteSpan encoded, MutableByteSpan plain) const override;
};

// --- Planes (plane.h) ---

// Without `matches` literals only: the same size for weights at several times the speed.  nullopt
// when it does not fit.
Result<std::optional<size_t>> zstd_encode_plane(ByteSpan plane, bool matches, MutableByteSpan out);
// As ZstdCodec::decode.
Status zstd_decode(ByteSpan encoded, MutableByteSpan plain);
// Encoded by plain length, of a sample of 32 KiB; at most 1.
Result<double> zstd_estimate(ByteSpan plain);

}  // namespace cake
