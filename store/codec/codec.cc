#include "store/codec/codec.h"

#include "store/codec/raw.h"
#include "store/codec/zstd.h"

namespace cake {

namespace {

const Codec& raw_codec() {
  static const RawCodec codec;
  return codec;
}

const Codec& zstd_codec() {
  static const ZstdCodec codec;
  return codec;
}

}  // namespace

std::string_view codec_name(CodecId id) {
  switch (id) {
    case CodecId::raw:
      return "raw";
    case CodecId::zstd:
      return "zstd";
    case CodecId::float_planes:
      return "float_planes";
    case CodecId::delta:
      return "delta";
  }
  return "unknown";
}

std::optional<CodecId> codec_from_name(std::string_view name) {
  for (const CodecId id : {CodecId::raw, CodecId::zstd, CodecId::float_planes, CodecId::delta})
    if (codec_name(id) == name) return id;
  return std::nullopt;
}

Result<const Codec*> find_codec(CodecId id) {
  switch (id) {
    case CodecId::raw:
      return &raw_codec();
    case CodecId::zstd:
      return &zstd_codec();
    default:
      return Error{Errc::unsupported, cat("codec ", static_cast<unsigned>(id), " (", codec_name(id),
                                          ") is not known to this program")};
  }
}

const Codec& choose_codec(CodecChoice choice, Dtype /*dtype*/) {
  // zstd gives up by itself where it does not gain, so it serves every dtype until float_planes.
  return choice == CodecChoice::raw ? raw_codec() : zstd_codec();
}

}  // namespace cake
