// Lossless encodings of a chunk at rest.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "store/base/bytes.h"
#include "store/base/result.h"
#include "store/format/layout.h"

namespace cake {

// On disk: values are fixed and listed in man/cakefs-store.5.
enum class CodecId : uint8_t {
  raw = 0,
  zstd = 1,
  float_planes = 2,
  delta = 3,  // reserved
};

std::string_view codec_name(CodecId id);
std::optional<CodecId> codec_from_name(std::string_view name);

// One way to encode.  Immutable, so thread-safe.
class Codec {
 public:
  virtual ~Codec() = default;
  virtual CodecId id() const = 0;
  // nullopt when encoding gains less than 1.5 %: the chunk is then stored raw.
  virtual Result<std::optional<Buffer>> encode(ByteSpan plain, Dtype dtype) const = 0;
  // Fills `plain` exactly; `encoded` is hostile.  Errors: corrupt.
  virtual Status decode(ByteSpan encoded, MutableByteSpan plain) const = 0;
};

// The codec for an id read from disk; unsupported when this program does not know it.
Result<const Codec*> find_codec(CodecId id);

// What `codec=` means for a chunk of a dtype.  zstd and rans choose how planes of weights are coded
// (automatic: rans where this machine is fast at it); everything else is zstd.
enum class CodecChoice : uint8_t { automatic, raw, zstd, rans };
const Codec& choose_codec(CodecChoice choice, Dtype dtype);

}  // namespace cake
