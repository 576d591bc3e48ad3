// A hostile file head: never a crash, and what is accepted is cut exactly.
#include "store/format/format.h"
#include "store/format/safetensors.h"

using namespace cake;

namespace {

void check_file(ByteSpan head, uint64_t file_bytes) {
  const uint64_t needed = head_bytes_needed(Cutter::safetensors, head, file_bytes);
  CAKE_CHECK(needed == 0 || needed > head.size());
  CAKE_CHECK(needed <= kMaxSafetensorsHeaderBytes + 8);
  const Cut cut = cut_file(Cutter::safetensors, head, file_bytes);
  CAKE_CHECK((cut.cutter == Cutter::safetensors) == cut.refusal.empty());
  CAKE_CHECK(cut.cutter == Cutter::uniform || needed == 0);
  if (cut.extents.count() > 100'000) return;
  uint64_t end = 0;
  for (size_t i = 0; i < cut.extents.count(); i++) {
    const Extent extent = cut.extents.at(i);
    CAKE_CHECK(extent.offset == end && extent.length > 0 && extent.length <= kChunkBytes);
    CAKE_CHECK(cut.extents.find(extent.end() - 1) == i);
    end = extent.end();
  }
  CAKE_CHECK(end == file_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan input(reinterpret_cast<const std::byte*>(data), size);
  check_file(input, size);
  // Mutations seldom keep the length right; what they do to the JSON is the point.
  Buffer file(8);
  const ByteSpan json = input.subspan(std::min<size_t>(8, size));
  file.insert(file.end(), json.begin(), json.end());
  const size_t close = as_text(json).rfind("}}");
  const size_t json_bytes = close == std::string_view::npos ? json.size() : close + 2;
  store_le(file.data(), uint64_t{json_bytes});
  check_file(file, file.size());
  return 0;
}
