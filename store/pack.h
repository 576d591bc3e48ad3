// Packs: append-only files of self-describing entries (man/cakefs-store.5, "Packs").
//
// An entry is a header of kEntryHeaderBytes, then the payload.  One with 64 KiB of payload or more
// begins at a multiple of 4096, and so does whatever follows it: its blocks are its own and can be
// punched.  A smaller one begins at a multiple of 64.  Between entries are zeros or holes.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/base/digest.h"
#include "store/base/direct_file.h"
#include "store/base/file.h"
#include "store/base/memory.h"
#include "store/base/mutex.h"
#include "store/base/result.h"
#include "store/codec/codec.h"
#include "store/format/layout.h"
#include "store/index.h"

namespace cake {

constexpr uint64_t kPackHeaderBytes = 64;
constexpr uint64_t kEntryHeaderBytes = 128;
constexpr uint64_t kBigPayloadBytes = 64 * kKiB;
constexpr uint64_t kBigAlignment = 4096;
constexpr uint64_t kSmallAlignment = 64;
// Above the largest recipe head (100 MB) and any chunk; a larger length is not an entry.
constexpr uint64_t kMaxPayloadBytes = 128 * kMiB;
// Above this a writer starts another pack.
constexpr uint64_t kPackBytes = 4 * kGiB;

// On disk: values are fixed.
enum class EntryKind : uint8_t {
  chunk = 1,
  recipe = 2,
  recipe_segment = 3,
  snapshot = 4,
  ref = 5,
  pin = 6,
  removal = 7,
};

// The start of a pack file.
struct PackHeader {
  std::array<std::byte, 16> uuid{};  // random: what the pack's entries are recognised by
  int64_t created_at = 0;            // Unix seconds
};
std::array<std::byte, kPackHeaderBytes> encode_pack_header(const PackHeader& header);
// corrupt; unsupported for a newer version.
Result<PackHeader> decode_pack_header(ByteSpan bytes);

struct EntryHeader {
  EntryKind kind = EntryKind::chunk;
  CodecId codec = CodecId::raw;
  Dtype dtype = Dtype::bytes;
  uint32_t payload_bytes = 0;
  uint32_t plain_bytes = 0;
  uint64_t ordinal = 0;   // chunk: of the extent in the content
  uint64_t checksum = 0;  // XXH3-64 of the plain bytes
  Digest digest;          // BLAKE3-256 of the plain bytes
  Digest content;         // content_pack_name; zero where there is none
  // Unix microseconds, of snapshots, refs, pins and removals: which of two counts when the index is
  // made again.  0: before all others.
  int64_t written_at = 0;
};
// `offset` is where the header lies in the file.  Offset and uuid are part of the header, so that
// neither blocks of another file nor bytes inside a payload pass for an entry.
std::array<std::byte, kEntryHeaderBytes> encode_entry_header(const EntryHeader& header,
                                                             const PackHeader& pack,
                                                             uint64_t offset);
// nullopt for anything that is not a whole, valid header at `offset`; total on hostile bytes.
std::optional<EntryHeader> decode_entry_header(ByteSpan bytes, const PackHeader& pack,
                                               uint64_t offset);
// Where an entry with such a payload begins when the pack ends at `end`.
uint64_t entry_offset(uint64_t end, uint64_t payload_bytes);

struct PackEntry {
  EntryHeader header;
  uint64_t offset = 0;  // of the header
  uint64_t payload_offset() const { return offset + kEntryHeaderBytes; }
  uint64_t end() const { return payload_offset() + header.payload_bytes; }
};

// Calls `each` for every entry in [from, file_bytes) whose header is valid and whose payload lies
// in the file.  Skips holes and garbage, going on at the next multiple of 64.  Payloads are not
// read: whether they are what the header says is for the caller to check.  An error of `each` ends
// it.
Status scan_pack(const File& file, const PackHeader& pack, uint64_t from, uint64_t file_bytes,
                 const std::function<Status(const PackEntry&)>& each);

// A pack of which this process holds the writer's lock (an OFD lock on the whole file).
struct LockedPack {
  Index::PackRow row;
  File file;
  PackHeader header;
};
// Makes DIRECTORY/NNNNNNNN-RANDOM.pack, durable and with its row.
Result<LockedPack> create_pack(const std::string& directory, Index& index);
// nullopt when another process writes it, or it is gone or sealed meanwhile.
Result<std::optional<LockedPack>> lock_pack(const std::string& directory, Index& index,
                                            const Index::PackRow& row);

// An entry to append.  The payload lives until append() returns.
struct NewEntry {
  EntryHeader header;
  ByteSpan payload;
};

// Appends to a pack.  Confined to one thread, but for sync().
class PackWriter {
 public:
  // Appends behind the committed bytes; whatever lies there was salvaged.
  explicit PackWriter(LockedPack pack)
      : pack_(std::move(pack)), direct_(pack_.file.path()), end_(pack_.row.committed_bytes) {}
  uint32_t id() const { return pack_.row.id; }
  const std::string& path() const { return pack_.file.path(); }
  // Of the last entry.
  uint64_t end() const { return end_; }
  const File& file() const { return pack_.file; }
  // Where the pack ends at most once such entries are appended.
  uint64_t end_after(std::span<const NewEntry> entries) const;
  // past_cache: large entries, and what lies between, go straight to the disk, which costs half and
  // leaves the page cache to the mount's own files; append() then takes as long as the disk does.
  // through_cache: the page cache takes what the disk is too slow for.
  enum class Way { past_cache, through_cache };
  // All or nothing, in as few writes as the kernel takes.  Answers the payload offsets.
  Result<std::vector<uint64_t>> append(std::span<const NewEntry> entries, Way way);
  // What was appended before is durable.  Thread-safe.
  Status sync() const { return pack_.file.sync_data(); }

 private:
  // Where an entry may begin, behind the last.
  uint64_t next_entry(uint64_t end, bool is_behind_big, uint64_t payload_bytes) const;
  Result<bool> write_direct(uint64_t offset, std::span<const ByteSpan> parts);

  const LockedPack pack_;
  DirectFile direct_;  // closed once it was seen not to work
  uint64_t end_;
  uint64_t zeroed_end_ = 0;  // there are zeros behind end_ up to here, when it is larger
  bool last_is_big_ = end_ > kPackHeaderBytes;  // of a pack that is gone on with: not known, so yes
};

// Reads payloads of any pack.  Keeps the files it read last open.  Thread-safe.
//
// Large payloads are read past the page cache (O_DIRECT): who reads through a mount has the bytes
// in the mount's page cache already, and a second copy would cost memory and half of the speed.
class PackReader {
 public:
  static constexpr size_t kMaxOpenPacks = 128;
  PackReader(std::string directory, Index& index)
      : directory_(std::move(directory)), index_(index) {}
  // Errors: not_found (the pack is gone), corrupt (it ends too early), io.
  Status read(uint32_t pack, uint64_t offset, MutableByteSpan out) EXCLUDES(mutex_);
  // The same into a buffer of its own.
  Result<std::shared_ptr<ChunkBuffer>> read(uint32_t pack, uint64_t offset, size_t bytes,
                                            BufferPool& buffers) EXCLUDES(mutex_);
  // A file that was removed keeps its disk for as long as somebody has it open.
  void close_removed() EXCLUDES(mutex_);

 private:
  struct Files {
    File cached;
    File direct;  // not open where the file system cannot do it
  };
  using FilesPtr = std::shared_ptr<const Files>;
  struct Open {
    FilesPtr files;
    std::list<uint32_t>::iterator age;
  };
  Result<FilesPtr> get_files(uint32_t pack) EXCLUDES(mutex_);
  // Constant after construction.
  const std::string directory_;
  Index& index_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::unordered_map<uint32_t, Open> open_ GUARDED_BY(mutex_);
  std::list<uint32_t> ages_ GUARDED_BY(mutex_);  // last used first
};

}  // namespace cake
