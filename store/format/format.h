// From a file's name and head to where it is cut into extents.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "store/format/layout.h"

namespace cake {

// An extent is at most this long.  Deduplication needs the same cuts everywhere, so it never
// changes for a cutter version; measured: any chunk decodes in about 0.1 ms at this size.
constexpr uint64_t kChunkBytes = kMiB;

// How a file was cut; on disk, so values are fixed.
enum class Cutter : uint8_t {
  uniform = 1,      // every kChunkBytes from the start of the file
  safetensors = 2,  // header, then anew from each tensor's start
};

struct Extent {
  uint64_t offset = 0;
  uint64_t length = 0;  // 1 to kChunkBytes
  Dtype dtype = Dtype::bytes;
  uint64_t end() const { return offset + length; }
};

// The ordered extents of a file, computed from the runs (header, tensors) and not stored: a file of
// 1 TB takes as much memory as it has tensors.  Immutable.
class Extents {
 public:
  static Extents uniform(uint64_t file_bytes);
  // `layout` is one that its parser accepted for a file of `file_bytes`.
  static Extents from_layout(const Layout& layout, uint64_t file_bytes);

  size_t count() const { return total_; }
  uint64_t file_bytes() const { return file_bytes_; }
  Extent at(size_t ordinal) const;
  // The extent that holds `offset`; offset < file_bytes().
  size_t find(uint64_t offset) const;
  // The run (0 = header or whole file, then the tensors that have bytes) that holds an extent:
  // what readahead calls "the tensor".
  ByteRange run_of(size_t ordinal) const;

 private:
  struct Run {
    uint64_t offset;
    size_t first_ordinal;
    Dtype dtype;
  };
  void add_run(uint64_t offset, uint64_t end, Dtype dtype);
  size_t run_index(size_t ordinal) const;

  std::vector<Run> runs_;
  size_t total_ = 0;
  uint64_t file_bytes_ = 0;
};

// Which cutter a file's name asks for; what its bytes say decides in the end.
Cutter wanted_cutter(std::string_view path);

// How long a head (counted from the start of the file) `cutter` needs next, given the one at hand:
// 0 when that one is enough to decide.  uniform needs none.  Never more than
// kMaxSafetensorsHeaderBytes + 8.
uint64_t head_bytes_needed(Cutter cutter, ByteSpan head, uint64_t file_bytes);

struct Cut {
  Cutter cutter = Cutter::uniform;
  Extents extents;
  std::string refusal;  // why the wanted cutter was not taken; empty when it was
};
// Cuts a file.  `head` holds what head_bytes_needed asked for.  A head that does not parse gives
// the uniform cut and says why: the file is then served as opaque bytes.
Cut cut_file(Cutter wanted, ByteSpan head, uint64_t file_bytes);

}  // namespace cake
