// Materialized files: complete contents kept as one plain file each, which the kernel can read
// without asking us (FUSE passthrough).
//
// Such a file is a pack without headers, packs/NAME.raw, whose chunks lie at the file's own
// offsets: its chunk rows point into it and their old copies are punched, so it costs no second
// copy once it is there.  It is never punched and never written again, only unlinked: who has it
// mapped keeps the bytes.  store/README.md describes what a crash leaves behind.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/file.h"
#include "store/materialized_index.h"
#include "store/pack.h"
#include "store/store.h"

namespace cake {

struct MaterializeOptions {
  // Left free on the disk, beside the file itself.
  uint64_t min_free_bytes = 0;
  // Asked every few MiB; what was begun is undone, or finished by the next recover().
  std::function<bool()> should_stop;
  // Called as the file is written.
  std::function<void(uint64_t bytes)> on_progress;
};

// Thread-safe: all state is in the store.
class Materializer {
 public:
  // Smaller contents gain nothing: one request reads them.
  static constexpr uint64_t kLeastBytes = kMiB;

  enum class Outcome {
    done,
    already,
    incomplete,  // bytes are missing: pull the file first
    too_small,
    busy,     // another process is at it
    stopped,  // by should_stop
  };
  // A materialized content.
  struct Entry {
    RowId content = 0;
    uint64_t bytes = 0;
  };

  // Finishes or undoes what killed processes left (recover()).  The store outlives this.
  static Result<std::unique_ptr<Materializer>> open(Store& store);
  // The same but for recover(): for who makes room, and may have none yet.
  static Result<std::unique_ptr<Materializer>> connect(Store& store);

  // Errors: no_space; corrupt (the bytes are not what the hub's hash says: nothing is changed).
  Result<Outcome> materialize(RowId content, const MaterializeOptions& options);

  // The file of a materialized content, locked (shared) against its removal for as long as the open
  // description lives: the kernel's too, once it is registered for passthrough.  nullopt: there is
  // none.  Costs one system call when there is none.
  Result<std::optional<File>> open_file(const ContentRow& content);
  Result<bool> is_materialized(const ContentRow& content);

  // False: there is none, or it is in use (open in passthrough).
  // Chunks go back into ordinary packs, encoded.  no_space: nothing is changed.
  Result<bool> unmaterialize(RowId content);
  // Chunks are dropped: for when there is no room.  Those that pinned or open contents share go
  // into ordinary packs, if they are few; else the file stays.  Answers the bytes that came free.
  Result<uint64_t> evict(RowId content);
  // Whether evict() would let it go while these chunks (digest_key, sorted) are kept.
  Result<bool> is_evictable(const Entry& entry, const std::vector<uint64_t>& kept);
  // The same for a content that is removed: what `staying` or pinned or open contents share is
  // moved, whatever that takes; without room for it, only what the latter do.  nullopt: it stays.
  Result<std::optional<uint64_t>> forget(RowId content, const std::vector<uint64_t>& staying);

  Result<std::vector<Entry>> list();

  // Finishes what killed processes left, and takes files apart in which a chunk proved wrong; of
  // larger ones than `most_bytes` nothing, since somebody waits for the store to be opened.  What
  // fails is logged: one bad file keeps no store from being opened, and no other file from being
  // looked after.
  static constexpr uint64_t kFinishedAtOnce = 256 * kMiB;
  Status recover(uint64_t most_bytes = kFinishedAtOnce);

 private:
  Materializer(Store& store, std::unique_ptr<MaterializedIndex> index);

  struct Plan;
  struct Held;
  Result<std::optional<Plan>> make_plan(RowId content) const;
  Result<Outcome> write_copy(const Plan& plan, const File& out, const MaterializeOptions& options);
  Status record(const Plan& plan);
  Status move_in(const MaterializedRow& row, const Plan& plan);
  void punch(const std::vector<Location>& left);
  Result<std::optional<Held>> hold(const ContentRow& content);
  struct Leave;
  Result<bool> take_out(const Plan& plan);
  Result<std::optional<uint64_t>> leave(const Plan& plan, const Leave& how);
  Result<std::optional<uint64_t>> drop_uncut(RowId content, const Leave& how);
  Result<bool> drop_unneeded(uint32_t pack, std::span<const ChunkRow> chunks);
  Result<std::optional<uint64_t>> drop_file(const MaterializedRow& row, const Plan& plan,
                                            const Leave& how);
  Status check_room(uint64_t bytes, bool is_eviction) const;
  Status move_out(const MaterializedRow& row, const Plan& plan, const Leave& how);
  Status move_chunks(std::optional<PackWriter>& writer, const MaterializedRow& row,
                     const Plan& plan, const Leave& how);
  Result<MovedChunk> append_chunk(PackWriter& writer, const Plan& plan, uint64_t ordinal,
                                  const Digest& content, const Location& from, ByteSpan plain);
  Status remove(const MaterializedRow& row);
  Status recover_row(const MaterializedRow& row, uint64_t most_bytes);
  Status recover_uncut(const MaterializedRow& row);
  Status recover_leaving(const MaterializedRow& row, const Plan& plan, uint64_t most_bytes);
  Status recover_file(const std::string& name);
  Result<bool> adopt(const std::string& name, const File& file, Plan& plan);
  std::string path_of(const std::string& name) const;

  // Constant after construction.
  Store& store_;
  const std::string packs_;
  const std::unique_ptr<MaterializedIndex> index_;
};

// For who opens a store: does what Materializer::open does, if the store has a materialized file,
// and lets the store's eviction and removal know of such files.
Status recover_materialized(Store& store);

}  // namespace cake
