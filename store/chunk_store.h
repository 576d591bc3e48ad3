// Chunks at rest: read by digest, stored behind the reader, published in groups.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "store/base/memory.h"
#include "store/base/metrics.h"
#include "store/base/result.h"
#include "store/base/thread_pool.h"
#include "store/codec/codec.h"
#include "store/index.h"

namespace cake {

class Evictor;

// One extent to store.
struct PutRequest {
  RowId content = 0;
  std::string content_name;  // hex digest naming the content in packs (see content_pack_name)
  uint64_t ordinal = 0;
  Dtype dtype = Dtype::bytes;
  ChunkPtr plain;
  std::optional<Digest> digest;  // when the caller has computed it already
  // Called once, from a store thread, when the bytes can be read at the location (not yet durable),
  // or when they could not be written: then they are only in memory.
  std::function<void(const Digest& digest, Result<Location> location)> done;
};

// A chunk at rest, to be encoded anew.  Content and ordinal are what its new entry says.
struct RecodeRequest {
  Digest digest;
  Location location;
  Dtype dtype = Dtype::bytes;
  std::string content_name;
  uint64_t ordinal = 0;
};

struct SegmentItem;  // store/pack_record.h

// Extents to publish in one transaction: bounds it and its memory.
constexpr size_t kPublishPortion = 8192;

// Thread-safe.
//
// Life of a put: pool thread hashes, looks for the digest (index, or this group), encodes, appends
// to this process's pack, calls `done`.  The committer makes bytes durable (fdatasync), then
// commits the rows: every kGroupBytes or kGroupDelay, and on flush.  When encoders fall behind,
// chunks are stored as they are, and encoded one by one when nothing is put; their old bytes are
// then punched.
class ChunkStore {
 public:
  static constexpr uint64_t kGroupBytes = 64 * kMiB;
  static constexpr Millis kGroupDelay{1000};

  // Opens DIR/packs (made by the caller); salvages the uncommitted tails of packs whose writer is
  // gone.  `evictor` (which outlives this) is asked for disk space; without it there is no limit.
  static Result<std::unique_ptr<ChunkStore>> open(const std::string& directory, Index& index,
                                                  BufferPool& buffers, ThreadPool& pool,
                                                  CodecChoice codec, Metrics& metrics,
                                                  uint64_t pack_bytes = 4 * kGiB,
                                                  Evictor* evictor = nullptr);
  // Flushes; errors are logged.
  ~ChunkStore();

  // Decoded and checked bytes.  Errors: corrupt (checksum, short pack), not_found (pack gone): the
  // caller asks the index again, then fetches.  Reads on the calling thread.
  Result<ChunkPtr> read(const Location& location);
  // Closes packs that are no longer there: their blocks come free when nobody has them open.
  void close_removed();

  // Never waits.  The memory of `plain` is held until written.
  void put(PutRequest request);
  // Encodes a chunk by this store's codec, on the calling thread, when that makes it smaller, or
  // makes it raw where the codec is.  The row moves with the next group, and the old entry is
  // punched.  False: it stays as it is.  Errors: of reading it, and of the index.
  Result<bool> recode(const RecodeRequest& request);
  // Plain bytes waiting to be written.
  uint64_t queued_bytes() const;

  // Everything put before this call is durable and published, or its error was reported.  Not from
  // a task of the pool, which may be what it waits for.
  Status flush();
  // As flush, without waiting; `done` runs on a store thread.
  void flush_async(std::function<void(Status)> done);

  // Small facts that make the index rebuildable from packs; durable with the next group.
  Status record_snapshot(const std::string& source, const Snapshot& snapshot);
  Status record_ref(const std::string& source, const RepoName& repo, const RefRow& ref);
  Status record_recipe(const std::string& content_name, const RecipeRow& recipe,
                       uint64_t file_bytes);
  // What extents of a content are, for those whose chunks have no entry that says so.
  Status record_segment(const std::string& content_name, const std::vector<SegmentItem>& items);
  Status record_pin(const std::string& source, const RepoName& repo, const std::string& revision,
                    bool is_pinned);
  // `commit` empty: the whole repo.
  Status record_removal(const std::string& source, const RepoName& repo, const std::string& commit);

 private:
  struct Impl;
  explicit ChunkStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// How packs name a content without row ids: BLAKE3 of source, kind and id.
std::string content_pack_name(const std::string& source, const ContentKey& key);

}  // namespace cake
