// Weights split into planes, each stored raw, as a constant, with zstd or with rANS.
#pragma once

#include "store/codec/codec.h"
#include "store/codec/kernels.h"
#include "store/codec/plane.h"

namespace cake {

// The frame is in man/cakefs-store.5.  Chunks of up to 1 MiB; others are not encoded.
class FloatPlanesCodec final : public Codec {
 public:
  // `coder` is for encode only: every frame can be read.
  FloatPlanesCodec(EntropyCoder coder, const CodecKernels& kernels)
      : coder_(coder), kernels_(kernels) {}
  CodecId id() const override { return CodecId::float_planes; }
  // A chunk of 64 KiB or more is sampled first: noise costs a hundredth of an attempt.
  Result<std::optional<Buffer>> encode(ByteSpan plain, Dtype dtype) const override;
  // Writes into `plain` only; memory is a few buffers a thread, sized by the plain length.
  Status decode(ByteSpan encoded, MutableByteSpan plain) const override;

  // Whether this codec knows more of the dtype than that it is bytes.
  static bool has_transform(Dtype dtype);

 private:
  const EntropyCoder coder_;
  const CodecKernels& kernels_;
};

}  // namespace cake
