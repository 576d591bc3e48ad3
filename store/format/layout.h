// What a model file's header says: which tensor lies where.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/bytes.h"

namespace cake {

// Element types of safetensors (huggingface/safetensors, "Format").  Written to disk in packs and
// recipes: values are fixed, new ones are added at the end, and man/cakefs-store.5 lists them.
enum class Dtype : uint8_t {
  bytes = 0,  // not a tensor (header, opaque file), or a type we do not know
  boolean = 1,
  f4 = 2,
  f6_e2m3 = 3,
  f6_e3m2 = 4,
  u8 = 5,
  i8 = 6,
  f8_e5m2 = 7,
  f8_e4m3 = 8,
  f8_e8m0 = 9,
  f8_e4m3fnuz = 10,
  f8_e5m2fnuz = 11,
  i16 = 12,
  u16 = 13,
  f16 = 14,
  bf16 = 15,
  i32 = 16,
  u32 = 17,
  f32 = 18,
  c64 = 19,
  f64 = 20,
  i64 = 21,
  u64 = 22,
};

struct Tensor {
  std::string name;
  Dtype dtype = Dtype::bytes;
  std::string dtype_name;  // as the header spells it, also for types we do not know
  std::vector<uint64_t> shape;
  ByteRange range;  // counted from the start of the file
};

// Tensors sorted by (offset, end), without gaps, from `header_bytes` to the end of the file.
struct Layout {
  uint64_t header_bytes = 0;  // length prefix included
  std::vector<Tensor> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;  // "__metadata__", in file order
};

}  // namespace cake
