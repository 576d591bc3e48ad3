#include "store/codec/raw.h"

#include <algorithm>

namespace cake {

Result<std::optional<Buffer>> RawCodec::encode(ByteSpan, Dtype) const {
  return std::nullopt;
}

Status RawCodec::decode(ByteSpan encoded, MutableByteSpan plain) const {
  if (encoded.size() != plain.size())
    return Error{Errc::corrupt,
                 cat("raw: ", encoded.size(), " bytes for a chunk of ", plain.size())};
  std::copy(encoded.begin(), encoded.end(), plain.begin());
  return {};
}

}  // namespace cake
