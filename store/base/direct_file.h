// Large writes past the page cache (O_DIRECT).
#pragma once

#include <cstdlib>
#include <memory>
#include <span>
#include <string>

#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/base/memory.h"
#include "store/base/result.h"

namespace cake {

// Copies what is written into memory of its own, which is aligned as the disk asks and stays in the
// processor's cache; so callers need not align anything but the place.  Written so, a byte costs
// less than half of what the kernel takes to copy it into fresh pages of its cache
// (fetch/README.md).  Confined to one thread.
class DirectFile {
 public:
  DirectFile() = default;
  // Not open where the file system cannot do it.
  explicit DirectFile(const std::string& path);
  bool is_open() const { return file_.is_open(); }
  // The parts one after the other from `offset`, a multiple of kDirectAlignment, then zeros up to
  // the next multiple.  Durable after sync_data() of any descriptor of the file.
  Status write_parts_at(uint64_t offset, std::span<const ByteSpan> parts);

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  File file_;
  std::unique_ptr<std::byte, Free> staging_;
};

}  // namespace cake
