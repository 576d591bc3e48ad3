#include "store/format/format.h"

#include <algorithm>

#include "store/format/safetensors.h"

namespace cake {

namespace {

constexpr size_t chunks_in(uint64_t bytes) {
  return bytes / kChunkBytes + (bytes % kChunkBytes != 0);
}

}  // namespace

Extents Extents::uniform(uint64_t file_bytes) {
  Extents extents;
  extents.file_bytes_ = file_bytes;
  extents.add_run(0, file_bytes, Dtype::bytes);
  return extents;
}

Extents Extents::from_layout(const Layout& layout, uint64_t file_bytes) {
  Extents extents;
  extents.file_bytes_ = file_bytes;
  extents.runs_.reserve(layout.tensors.size() + 1);
  extents.add_run(0, layout.header_bytes, Dtype::bytes);
  uint64_t end = layout.header_bytes;
  for (const Tensor& tensor : layout.tensors) {
    CAKE_CHECK(tensor.range.offset == end);
    end = tensor.range.end();
    extents.add_run(tensor.range.offset, end, tensor.dtype);
  }
  CAKE_CHECK(end == file_bytes);
  return extents;
}

void Extents::add_run(uint64_t offset, uint64_t end, Dtype dtype) {
  if (offset == end) return;
  runs_.push_back({offset, total_, dtype});
  total_ += chunks_in(end - offset);
}

size_t Extents::run_index(size_t ordinal) const {
  CAKE_CHECK(ordinal < total_);
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), ordinal,
                       [](size_t value, const Run& run) { return value < run.first_ordinal; });
  return static_cast<size_t>(after - runs_.begin()) - 1;
}

Extent Extents::at(size_t ordinal) const {
  const size_t index = run_index(ordinal);
  const Run& run = runs_[index];
  const uint64_t run_end = index + 1 < runs_.size() ? runs_[index + 1].offset : file_bytes_;
  const uint64_t offset = run.offset + (ordinal - run.first_ordinal) * kChunkBytes;
  return {offset, std::min(kChunkBytes, run_end - offset), run.dtype};
}

size_t Extents::find(uint64_t offset) const {
  CAKE_CHECK(offset < file_bytes_);
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), offset,
                       [](uint64_t value, const Run& run) { return value < run.offset; });
  const Run& run = *(after - 1);
  return run.first_ordinal + (offset - run.offset) / kChunkBytes;
}

ByteRange Extents::run_of(size_t ordinal) const {
  const size_t index = run_index(ordinal);
  const uint64_t end = index + 1 < runs_.size() ? runs_[index + 1].offset : file_bytes_;
  return {runs_[index].offset, end - runs_[index].offset};
}

Cutter wanted_cutter(std::string_view path) {
  return path.ends_with(".safetensors") ? Cutter::safetensors : Cutter::uniform;
}

uint64_t head_bytes_needed(Cutter cutter, ByteSpan head, uint64_t file_bytes) {
  if (cutter != Cutter::safetensors || file_bytes < kSafetensorsLengthBytes) return 0;
  if (head.size() < kSafetensorsLengthBytes) return kSafetensorsLengthBytes;
  const auto header_bytes = safetensors_header_bytes(head, file_bytes);
  // A refused length needs no more bytes to decide.
  return header_bytes && *header_bytes > head.size() ? *header_bytes : 0;
}

Cut cut_file(Cutter wanted, ByteSpan head, uint64_t file_bytes) {
  if (wanted != Cutter::safetensors) return {Cutter::uniform, Extents::uniform(file_bytes), ""};
  const Result<Layout> layout = parse_safetensors(head, file_bytes);
  if (!layout) return {Cutter::uniform, Extents::uniform(file_bytes), layout.error().message};
  return {Cutter::safetensors, Extents::from_layout(*layout, file_bytes), ""};
}

}  // namespace cake
