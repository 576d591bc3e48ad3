// Bytes that any test can compute for any range: contents of many GiB without storage.
#pragma once

#include <cstdint>
#include <string>

#include "store/base/bytes.h"

namespace cake {

// The bytes [offset, offset + out.size()) of the endless pattern of `seed`.
void fill_pattern(uint64_t seed, uint64_t offset, MutableByteSpan out);
Buffer pattern_bytes(uint64_t seed, uint64_t offset, uint64_t length);
// From the start, seed 0: a file of this length.
Buffer pattern_bytes(uint64_t length);

// Bytes that nothing compresses, the same for the same seed.
Buffer random_bytes(uint64_t seed, size_t size);
std::string random_text(size_t size, uint64_t seed);

}  // namespace cake
