// The index as materialized files see it: their pack rows, and chunk rows moving in and out.
//
// A materialized file is a row of `pack` with a kind of its own.  Connections of its own; what they
// change is on the disk when a call returns (synchronous=FULL), so that the copy that a row left
// may be punched at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/index_upkeep.h"

namespace cake {

// On disk, `pack.kind`: values are fixed.
enum class PackKind : uint8_t {
  entries = 0,       // an ordinary pack: headers and payloads
  materialized = 1,  // a file's own bytes, without headers
  arriving = 2,      // the same, while chunk rows are still being moved into it
  leaving = 3,       // the same, while they are being moved out or dropped; or one proved wrong
};

struct MaterializedRow {
  uint32_t pack = 0;
  std::string name;  // file name in packs/
  uint64_t bytes = 0;
  PackKind kind = PackKind::materialized;
};

// A chunk at its place in a materialized file.
struct PlacedChunk {
  Digest digest;
  uint64_t offset = 0;
  uint32_t plain_bytes = 0;
  uint64_t checksum = 0;  // XXH3-64
};

struct MovedChunk {
  Digest digest;
  Location from;
  Location to;
};

// Thread-safe: calls are serialised.  Errors as Index's.
class MaterializedIndex {
 public:
  static Result<std::unique_ptr<MaterializedIndex>> open(const std::string& path);
  ~MaterializedIndex();

  Result<std::optional<MaterializedRow>> find(const std::string& name);
  Result<std::vector<MaterializedRow>> list();
  // Makes the row, `arriving`.
  Result<MaterializedRow> add(const std::string& name, uint64_t bytes);
  Status set_kind(uint32_t pack, PackKind kind);
  // From `arriving` to `materialized`; what is `leaving` by now, because a chunk in it proved
  // wrong, stays so.
  Status arrived(uint32_t pack);
  // From `leaving` back to `kind`, if the rows of all these chunks still point into it.
  Status stay(uint32_t pack, PackKind kind, std::span<const Digest> digests);
  Status remove(uint32_t pack);
  // All rows that point into it.  Looks at every chunk of the store.
  Result<std::vector<ChunkRow>> chunks_in(uint32_t pack);

  // The rows of these chunks that point into ordinary packs point into `pack` from now on; a row
  // that was missing is made.  Answers where the moved ones were.
  Result<std::vector<Location>> move_in(uint32_t pack, std::span<const PlacedChunk> chunks);
  // Rows that still say `from` say `to`.
  Status move_out(std::span<const MovedChunk> chunks);
  // Deletes the rows of these chunks that point into `pack`.
  Status drop(uint32_t pack, std::span<const Digest> digests);

 private:
  explicit MaterializedIndex(std::unique_ptr<IndexConnections> connections);

  const std::unique_ptr<IndexConnections> connections_;  // each with its lock
};

}  // namespace cake
