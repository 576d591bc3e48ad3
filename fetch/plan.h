// From missing extents to the ranges that are asked of an upstream.  Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/base/bytes.h"
#include "store/format/format.h"

namespace cake {

// Adjoining extents asked for in one request.
struct PlannedRange {
  uint64_t first = 0;  // ordinal
  uint64_t count = 0;
  ByteRange bytes;
};

// `missing` are ordinals in rising order.  Neighbours are merged up to `max_bytes`; a range never
// crosses a multiple of `region_bytes` other than with the last extent that begins before it (one
// claim covers it).
std::vector<PlannedRange> plan_ranges(const Extents& extents, std::span<const uint64_t> missing,
                                      uint64_t max_bytes, uint64_t region_bytes);

}  // namespace cake
