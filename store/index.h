// The index: names, contents, recipes and where chunks lie, in one SQLite file.  Its bodies are in
// index_*.cc, by groups of tables; no SQL is elsewhere but in index_upkeep.cc and
// materialized_index.cc.
//
// Rows are promises: a chunk row means the bytes are durable in a pack and hash to their digest.
// The schema, its versions and migrations are described in man/cakefs-store.5.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/base/clock.h"
#include "store/base/digest.h"
#include "store/base/result.h"
#include "store/codec/codec.h"
#include "store/format/format.h"
#include "store/snapshot.h"

namespace cake {

struct IndexConnections;  // store/index_connections.h

// Row ids are never reused (AUTOINCREMENT): inode numbers are made of them.
using RowId = uint64_t;

// Where a chunk's bytes are.
struct Location {
  uint32_t pack = 0;           // row of the pack
  uint64_t offset = 0;         // of the payload in the pack file
  uint32_t encoded_bytes = 0;  // payload length
  uint32_t plain_bytes = 0;
  CodecId codec = CodecId::raw;
  uint64_t checksum = 0;  // XXH3-64 of the plain bytes
  bool operator==(const Location&) const = default;
};

struct RepoRow {
  RowId id = 0;
  RepoName name;
  bool has_snapshot = false;  // a commit of it is known here
};

struct RefRow {
  std::string revision;  // as asked: "main", "v1.0", "refs/pr/1"; a commit is its own ref
  std::string commit;
  int64_t resolved_at = 0;  // Unix seconds
};

struct SnapshotRow {
  std::string commit;
  int64_t date = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;  // sum of file sizes
};

// One of the names of a content.
struct ContentPlace {
  RepoName repo;
  std::string commit;
  std::string path;
  bool operator==(const ContentPlace&) const = default;
};

// A content: what a file's bytes are, whatever its names.
struct ContentRow {
  RowId id = 0;
  ContentKey key;
  uint64_t bytes = 0;
  int64_t mtime = 0;  // date of the first commit seen with it; never changes
  FileIds ids;
  // Where it can be fetched: the last snapshot seen with it.
  std::string source;
  RepoName repo;
  std::string commit;
  std::string path;
  bool verified = false;    // the whole-file hash was computed here and is the hub's
  bool mismatched = false;  // it was computed, and is not
  int64_t last_access = 0;
};

// The directory tree that a typed name led to: the number behind directory inodes.
struct ViewRow {
  RowId id = 0;
  std::string layout;  // "flat", later "hf"
  std::string source;
  RepoName repo;
  std::string typed;   // the path as typed below the mount: "ORG/NAME@v1.0"; "" for the root
  std::string commit;  // empty for views above a repo (an organisation)
};

struct RecipeRow {
  Cutter cutter = Cutter::uniform;
  Buffer head;  // what the cutter needs to cut again; empty for uniform
};

// One extent that is now stored, or was found to equal a stored chunk.
struct PublishedExtent {
  RowId content = 0;  // 0: not known here; only the chunk row is written
  uint64_t ordinal = 0;
  Digest digest;
  // Set when this publication brings the bytes; empty when the chunk row exists already.
  std::optional<Location> location;
  // The extent's length, where there is no location; 0: as the chunk row says.
  uint32_t plain_bytes = 0;
  // Set when the bytes are there already, encoded otherwise: the row that says this location says
  // `location` from now on; another row, or none, is left as it is.
  std::optional<Location> replaces = std::nullopt;
};

struct Usage {
  uint64_t contents = 0;       // contents with at least one known extent
  uint64_t logical_bytes = 0;  // known extents, each counted for every content
  uint64_t chunks = 0;
  uint64_t plain_bytes = 0;    // after dedupe
  uint64_t encoded_bytes = 0;  // after compression
};

// What the whole-file hash of a content said.  On disk: values are fixed.
enum class Verification : uint8_t { unknown = 0, verified = 1, mismatch = 2 };

struct CodecUsage {
  CodecId codec = CodecId::raw;
  uint64_t chunks = 0, plain_bytes = 0, encoded_bytes = 0;
};

// What is cached of one content.
struct Cached {
  uint64_t bytes = 0;         // of its extents that have a chunk row
  uint64_t stored_bytes = 0;  // encoded bytes of those, each chunk counted once
};

// Thread-safe: calls are serialised on one connection a thread of work (reads, writes).  Every call
// may wait for the disk, and writes for another process's transaction (bounded by busy_timeout);
// never called per read of file data.
// Errors, in all: corrupt (the database is damaged), no_space, io.
class Index {
 public:
  // Creates or migrates the file.  unsupported: made by a newer program.
  static Result<std::unique_ptr<Index>> open(const std::string& path);
  ~Index();

  // --- names ---
  Result<RowId> get_source(const std::string& source);
  Result<RowId> get_repo(const std::string& source, const RepoName& name);  // makes the row
  Result<std::optional<RepoRow>> find_repo(const std::string& source, const RepoName& name);
  Result<std::vector<RepoRow>> list_repos(const std::string& source);
  Result<std::vector<std::string>> list_sources();

  Result<std::optional<RefRow>> find_ref(RowId repo, const std::string& revision);
  Result<std::vector<RefRow>> list_refs(RowId repo);
  Status put_ref(RowId repo, const RefRow& ref);
  Status put_pin(RowId repo, const std::string& revision, int64_t pinned_at);

  // Makes content rows for entries that are new and remembers the place of all.
  Result<std::shared_ptr<const Snapshot>> put_snapshot(RowId repo, const std::string& commit,
                                                       int64_t date,
                                                       std::vector<TreeEntry> entries);
  // nullptr when the commit is not known.
  Result<std::shared_ptr<const Snapshot>> find_snapshot(RowId repo, const std::string& commit);
  Result<std::vector<SnapshotRow>> list_snapshots(RowId repo);
  // Where else the content can be fetched: one place a repo, the snapshots seen last first, at most
  // `limit`.  Looks through the newest 1,000 snapshots of its source, one at a time.
  Result<std::vector<ContentPlace>> list_places(RowId content, size_t limit);

  // An author's repos as last listed by the hub.
  struct AuthorListing {
    std::vector<std::string> ids;
    int64_t listed_at = 0;
  };
  Result<std::optional<AuthorListing>> find_author(const std::string& source, RepoType type,
                                                   const std::string& author);
  Status put_author(const std::string& source, RepoType type, const std::string& author,
                    const AuthorListing& listing);

  Result<RowId> get_view(const ViewRow& view);  // by all but id; makes the row
  Result<std::optional<ViewRow>> find_view(RowId id);

  // --- contents and recipes ---
  Result<std::optional<ContentRow>> find_content(RowId id);
  // By what packs call it (content_pack_name).
  Result<std::optional<RowId>> find_content_by_name(const Digest& name);
  Status set_verification(RowId content, Verification verification);
  // Every extent is known (though its chunk may be evicted), and the whole-file hash was not
  // compared yet; those behind `after`, in order.
  Result<std::vector<RowId>> list_unverified(RowId after, size_t limit);
  // Contents with at least one known extent.
  Result<std::vector<RowId>> list_known_contents();
  // Other rows whose bytes are the same: a hash of theirs is this one's, and was verified here.
  Result<std::vector<RowId>> find_twins(const ContentRow& content);

  Result<std::optional<RecipeRow>> find_recipe(RowId content);
  // First writer wins: when a recipe is there already it is left alone.
  Status put_recipe(RowId content, const RecipeRow& recipe);
  // `count` digests from ordinal `first`; zero where unknown.
  Result<std::vector<Digest>> find_digests(RowId content, uint64_t first, uint64_t count);
  // Forgets digests that proved wrong (content verification): they become zero.  This and
  // drop_recipe() forget the verification too: it was of the digests that go.
  Status drop_digests(RowId content, std::span<const uint64_t> ordinals);
  // Forgets cut and digests: the whole file proved wrong, so its head may be.
  Status drop_recipe(RowId content);

  // --- chunks ---
  Result<std::vector<std::optional<Location>>> find_chunks(std::span<const Digest> digests);
  // One transaction: chunk rows, then digests into recipe segments, then the pack's committed
  // length.  Answers the entries that no row names after it, and that may be punched after sync():
  // those that were replaced, and those of `extents` whose chunk another process stored first.
  Result<std::vector<Location>> publish(std::span<const PublishedExtent> extents, uint32_t pack,
                                        uint64_t committed_bytes);
  // What was committed so far, by any process, is on the disk when it returns: no power loss takes
  // it back.
  Status sync();
  // A location proved false (checksum, short file): its row is removed if it still says so.  A
  // materialized file in which it lay is `leaving` from then on (materialized_index.h).
  Status drop_chunk(const Digest& digest, const Location& location);

  struct PackRow {
    uint32_t id = 0;
    std::string name;              // file name in packs/
    uint64_t committed_bytes = 0;  // the file is salvaged from here after a crash
    bool sealed = false;           // no writer will append again
  };
  // The row of that name is made when absent.
  Result<uint32_t> add_pack(const std::string& name);
  Result<std::optional<PackRow>> find_pack(uint32_t id);
  Result<std::vector<PackRow>> list_packs();
  Status seal_pack(uint32_t id, uint64_t committed_bytes);

  // --- sums, for commands ---
  Result<Usage> usage();
  Result<Cached> cached(RowId content);
  // Bytes of the distinct chunks of these contents, each counted once; and of those that no other
  // content holds (what removing them would give back).
  struct SetUsage {
    uint64_t logical_bytes = 0, plain_bytes = 0, encoded_bytes = 0, exclusive_encoded_bytes = 0;
  };
  Result<SetUsage> set_usage(std::span<const RowId> contents);
  // Of all chunks.
  Result<std::vector<CodecUsage>> usage_by_codec();

 private:
  explicit Index(std::unique_ptr<IndexConnections> connections);

  const std::unique_ptr<IndexConnections> connections_;  // each with its lock
};

}  // namespace cake
