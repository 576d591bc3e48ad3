// The inner loops of float_planes, one set for each kind of processor, all with equal output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "store/codec/rans.h"

namespace cake {

// Elements are split and merged in blocks of this many; only a chunk's last block is shorter.
constexpr size_t kBlockElements = 32 * kKiB;

// Pointers have no alignment.  Nothing is read or written beyond the lengths given.
struct CodecKernels {
  std::string_view name;
  // Whether a writer that may choose should choose rans here.
  bool rans_is_fast;

  // --- rans ---
  // Decodes `count` bytes (at most a segment, lane 0 first) from [in, end) and returns where the
  // stream goes on; null when it ends too soon.  An escape decodes as its entry's value; bit i % 32
  // of escapes[i / 32] says where they are.  `escapes` holds (count + 31) / 32 words.
  const uint8_t* (*rans_decode)(RansStates& states, const RansTable& table, const uint8_t* in,
                                const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes);
  // Encodes entries[count - 1] first, writing downwards from `out`, at most `count` bytes, of which
  // the lowest is returned.  Bytes of up to 32 below it may change.
  uint8_t* (*rans_encode)(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                          size_t count, uint8_t* out);
  // entries[i] = map[in[i]], and what maps to `escape` is copied to `escaped` (room for count +
  // 32); returns how many.  With kNoEscape nothing is an escape.
  size_t (*map_entries)(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                        uint8_t* entries, uint8_t* escaped);

  // --- elements to planes and back (see transform.h); `count` is at most a block ---
  void (*split_bf16)(const uint8_t* in, size_t count, uint8_t bias, uint8_t* symbols, uint8_t* tops,
                     uint8_t* rest);
  void (*merge_bf16)(const uint8_t* symbols, const uint8_t* tops, const uint8_t* rest, size_t count,
                     uint8_t bias, uint8_t* out);
  void (*split_f16)(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs,
                    uint8_t* lows);
  void (*merge_f16)(const uint8_t* symbols, const uint8_t* pairs, const uint8_t* lows, size_t count,
                    uint8_t* out);
  // Bits 6 to 1 are the symbol; 7 and 0 the pair.
  void (*split_fp8)(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs);
  void (*merge_fp8)(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out);
  // Bits 7 to 2 are the symbol; 1 and 0 the pair.
  void (*split_int8)(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs);
  void (*merge_int8)(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out);
  // An F32 as its upper half (a BF16) and its two lower bytes.
  void (*split_f32)(const uint8_t* in, size_t count, uint8_t* upper, uint8_t* mid, uint8_t* low);
  void (*merge_f32)(const uint8_t* upper, const uint8_t* mid, const uint8_t* low, size_t count,
                    uint8_t* out);
  // F32 to F16; false when an element is not finite or does not come back unchanged.
  bool (*narrow_f32)(const uint8_t* in, size_t count, uint8_t* out);
  // F16 to F32 as VCVTPH2PS does it: exact, a NaN made quiet.
  void (*widen_f16)(const uint8_t* in, size_t count, uint8_t* out);
};

const CodecKernels& scalar_kernels();
// Null where the processor, or the program, has none.
const CodecKernels* avx2_kernels();
const CodecKernels* avx512_kernels();
const CodecKernels* neon_kernels();

// The fastest of this machine that pass find_wrong_kernel (kernels_check.h); others are logged, at
// the first call.
const CodecKernels& best_kernels();
// All that this machine can run, scalar first, fastest last.
std::vector<const CodecKernels*> all_kernels();

}  // namespace cake
