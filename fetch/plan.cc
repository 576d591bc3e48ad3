#include "fetch/plan.h"

namespace cake {

std::vector<PlannedRange> plan_ranges(const Extents& extents, std::span<const uint64_t> missing,
                                      uint64_t max_bytes, uint64_t region_bytes) {
  std::vector<PlannedRange> ranges;
  for (const uint64_t ordinal : missing) {
    const Extent extent = extents.at(ordinal);
    if (!ranges.empty()) {
      PlannedRange& last = ranges.back();
      const bool adjoins = last.first + last.count == ordinal;
      const bool same_region = last.bytes.offset / region_bytes == extent.offset / region_bytes;
      if (adjoins && same_region && last.bytes.length + extent.length <= max_bytes) {
        last.count++;
        last.bytes.length += extent.length;
        continue;
      }
    }
    ranges.push_back({ordinal, 1, {extent.offset, extent.length}});
  }
  return ranges;
}

}  // namespace cake
