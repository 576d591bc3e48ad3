// The plain bytes themselves.
#pragma once

#include "store/codec/codec.h"

namespace cake {

class RawCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::raw; }
  // Always nullopt: nothing is gained.
  Result<std::optional<Buffer>> encode(ByteSpan plain, Dtype dtype) const override;
  Status decode(ByteSpan encoded, MutableByteSpan plain) const override;
};

}  // namespace cake
