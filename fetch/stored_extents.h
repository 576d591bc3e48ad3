// Which extents of a content the store has, and what they hold.
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "fetch/file_trouble.h"
#include "store/format/format.h"

namespace cake {

// Digests and locations, loaded from the index a segment at a time when first touched, so that a
// hot read asks no SQL.  Thread-safe.
class StoredExtents {
 public:
  struct Known {
    Digest digest;  // zero: never fetched
    std::optional<Location> location;
  };

  // References outlive this.
  StoredExtents(Store& store, const ContentRow& content, const FileTrouble& trouble)
      : store_(store), content_(content), trouble_(trouble) {}

  Result<Known> find(const Extents& extents, uint64_t ordinal) EXCLUDES(mutex_);
  void set(uint64_t ordinal, const Digest& digest, std::optional<Location> location)
      EXCLUDES(mutex_);
  // Asks the index again; ordinals rise.
  std::vector<Known> find_again(const std::vector<uint64_t>& ordinals) EXCLUDES(mutex_);

  // The chunk, checked; nullptr when it must be fetched.  A row proved wrong is dropped.
  ChunkPtr read(const Extents& extents, uint64_t ordinal) EXCLUDES(mutex_);

 private:
  static constexpr uint64_t kSegmentExtents = 1024;
  struct Segment {
    std::vector<Digest> digests;
    std::vector<std::optional<Location>> locations;
  };
  Result<std::shared_ptr<Segment>> get_segment(const Extents& extents, uint64_t index)
      EXCLUDES(mutex_);
  void note_bad_chunk(const Error& error, const Known& known, ByteRange bytes);

  // Constant after construction.
  Store& store_;
  const ContentRow& content_;
  const FileTrouble& trouble_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Segment>> segments_ GUARDED_BY(mutex_);
};

}  // namespace cake
