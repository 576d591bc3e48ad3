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

namespace {

bool is_float(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::f32:
    case Dtype::f64:
    case Dtype::c64:
    case Dtype::f8_e5m2:
    case Dtype::f8_e4m3:
    case Dtype::f8_e4m3fnuz:
    case Dtype::f8_e5m2fnuz:
      return true;
    default:
      return false;
  }
}

}  // namespace

const Codec& choose_codec(CodecChoice choice, Dtype dtype) {
  if (choice == CodecChoice::raw) return raw_codec();
  // zstd takes a fifth off BF16 but decodes at 0.66 GB/s a core (tests/bench/chunk_store_bench),
  // less than a disk reads: until float_planes, weights stay raw unless the user asks.
  if (choice == CodecChoice::automatic && is_float(dtype)) return raw_codec();
  return zstd_codec();
}

}  // namespace cake
