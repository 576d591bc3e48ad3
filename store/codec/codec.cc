#include "store/codec/codec.h"

#include "store/codec/float_planes.h"
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

// Encodes with rans wherever it is fast, else with zstd; reads both.
const Codec& planes_codec(EntropyCoder coder) {
  static const FloatPlanesCodec zstd(EntropyCoder::zstd, best_kernels());
  static const FloatPlanesCodec rans(EntropyCoder::rans, best_kernels());
  return coder == EntropyCoder::rans ? rans : zstd;
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
    case CodecId::float_planes:
      return &planes_codec(EntropyCoder::zstd);
    default:
      return Error{Errc::unsupported, cat("codec ", static_cast<unsigned>(id), " (", codec_name(id),
                                          ") is not known to this program")};
  }
}

const Codec& choose_codec(CodecChoice choice, Dtype dtype) {
  if (choice == CodecChoice::raw) return raw_codec();
  // zstd takes little off these and decodes more slowly than a disk reads.
  if (choice == CodecChoice::automatic && dtype == Dtype::f64) return raw_codec();
  if (!FloatPlanesCodec::has_transform(dtype)) return zstd_codec();
  const bool is_rans = choice == CodecChoice::rans ||
                       (choice == CodecChoice::automatic && best_kernels().rans_is_fast);
  return planes_codec(is_rans ? EntropyCoder::rans : EntropyCoder::zstd);
}

}  // namespace cake
