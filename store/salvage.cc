#include "store/salvage.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/pack_record.h"

namespace cake {

namespace {

// Chunks and what refers to them are published in portions, so that a whole lost index does not
// have to fit in memory or in one transaction.
constexpr size_t kSalvagePortion = 2000;

// An entry's payload, whole and with the digest that its header gives; nullopt when torn or
// damaged.
Result<std::optional<ChunkPtr>> read_entry(const LockedPack& pack, const PackEntry& entry,
                                           BufferPool& buffers) {
  Location location;
  location.pack = pack.row.id;
  location.offset = entry.payload_offset();
  location.encoded_bytes = entry.header.payload_bytes;
  location.plain_bytes = entry.header.plain_bytes;
  location.codec = entry.header.codec;
  location.checksum = entry.header.checksum;
  Result<ChunkPtr> plain = [&]() -> Result<ChunkPtr> {
    if (entry.header.kind == EntryKind::chunk)
      return read_chunk(location, buffers, [&](MutableByteSpan out) {
        return pack.file.read_exactly_at(location.offset, out);
      });
    auto buffer = buffers.allocate(entry.header.payload_bytes);
    CAKE_TRY(pack.file.read_exactly_at(location.offset, buffer->bytes()));
    return ChunkPtr(std::move(buffer));
  }();
  if (!plain) {
    // A codec of a newer program cannot be checked, so it is not indexed either.
    const Errc code = plain.error().code;
    if (code == Errc::corrupt || code == Errc::unsupported) return std::nullopt;
    return plain.error();
  }
  if (blake3((*plain)->bytes()) != entry.header.digest) return std::nullopt;
  return std::optional<ChunkPtr>(*plain);
}

class Salvage {
 public:
  Salvage(const std::string& directory, Index& index, BufferPool& buffers)
      : index_(index), buffers_(buffers), reader_(directory, index) {}

  // What was removed and pinned, from all packs, before any name is believed.
  Status collect_changes(LockedPack& pack) {
    return each_record(pack, {EntryKind::pin, EntryKind::removal},
                       [&](const EntryHeader& header, ByteSpan payload) {
                         return header.kind == EntryKind::pin
                                    ? note_pin(payload, header.written_at)
                                    : note_removal(payload, header.written_at);
                       });
  }

  // Names make the content rows that everything else refers to.
  Status salvage_names(LockedPack& pack) {
    return each_record(pack, {EntryKind::snapshot, EntryKind::ref},
                       [&](const EntryHeader& header, ByteSpan payload) {
                         return header.kind == EntryKind::snapshot
                                    ? put_snapshot(payload, header.written_at)
                                    : put_ref(payload, header.written_at);
                       });
  }

  Status salvage_pins() {
    for (const auto& [name, change] : pins_) {
      const auto& [source, repo, revision] = name;
      if (!change.is_pinned || is_removed(source, repo, "", change.at)) continue;
      const std::optional<RepoRow> row = CAKE_TRY(index_.find_repo(source, repo));
      if (row) CAKE_TRY(index_.put_pin(row->id, revision, change.at / 1'000'000));
    }
    return {};
  }

  Status salvage_chunks(LockedPack& pack) {
    uint64_t good_end = pack.row.committed_bytes;
    const auto each = [&](const PackEntry& entry) -> Status {
      const std::optional<ChunkPtr> payload = CAKE_TRY(read_entry(pack, entry, buffers_));
      if (!payload) return {};
      good_end = entry.end();
      CAKE_TRY(pass_over_damage(pack, entry, take(pack, entry, (*payload)->bytes())));
      return extents_.size() < kSalvagePortion ? Status() : publish(pack, good_end);
    };
    CAKE_TRY(scan(pack, each));
    CAKE_TRY(publish(pack, good_end));
    CAKE_TRY(pack.file.truncate(good_end));
    pack.row.committed_bytes = good_end;
    return {};
  }

 private:
  Status scan(LockedPack& pack, const std::function<Status(const PackEntry&)>& each) {
    const uint64_t file_bytes = CAKE_TRY(pack.file.size());
    return scan_pack(pack.file, pack.header, pack.row.committed_bytes, file_bytes, each);
  }

  Status each_record(LockedPack& pack, std::set<EntryKind> kinds,
                     const std::function<Status(const EntryHeader&, ByteSpan)>& each) {
    return scan(pack, [&](const PackEntry& entry) -> Status {
      if (!kinds.contains(entry.header.kind)) return {};
      const std::optional<ChunkPtr> payload = CAKE_TRY(read_entry(pack, entry, buffers_));
      if (!payload) return {};
      return pass_over_damage(pack, entry, each(entry.header, (*payload)->bytes()));
    });
  }

  // A record that does not parse has been written by a faulty program: it is lost, not the pack.
  Status pass_over_damage(const LockedPack& pack, const PackEntry& entry, const Status& status) {
    if (status || status.error().code != Errc::corrupt) return status;
    log_warn(
        cat("salvage of ", pack.file.path(), " at ", entry.offset, ": ", status.error().message));
    return {};
  }

  Status note_pin(ByteSpan payload, int64_t at) {
    const PinRecord record = CAKE_TRY(decode_pin_record(payload));
    PinChange& change = pins_[{record.source, record.repo, record.revision}];
    if (at >= change.at) change = {at, record.is_pinned};
    return {};
  }

  Status note_removal(ByteSpan payload, int64_t at) {
    const RemovalRecord record = CAKE_TRY(decode_removal_record(payload));
    int64_t& last = removals_[{record.source, record.repo, record.commit}];
    last = std::max(last, at);
    return {};
  }

  // Of the commit, or of the whole repo, after `at`.
  bool is_removed(const std::string& source, const RepoName& repo, const std::string& commit,
                  int64_t at) const {
    for (const std::string& what : {commit, std::string()}) {
      const auto found = removals_.find({source, repo, what});
      if (found != removals_.end() && found->second >= at) return true;
    }
    return false;
  }

  Status put_snapshot(ByteSpan payload, int64_t at) {
    SnapshotRecord record = CAKE_TRY(decode_snapshot_record(payload));
    if (is_removed(record.source, record.repo, record.commit, at)) return {};
    const RowId repo = CAKE_TRY(index_.get_repo(record.source, record.repo));
    CAKE_TRY(index_.put_snapshot(repo, record.commit, record.date, std::move(record.entries)));
    return {};
  }

  Status put_ref(ByteSpan payload, int64_t at) {
    const RefRecord record = CAKE_TRY(decode_ref_record(payload));
    if (is_removed(record.source, record.repo, record.ref.commit, at)) return {};
    const RowId repo = CAKE_TRY(index_.get_repo(record.source, record.repo));
    const std::optional<RefRow> known = CAKE_TRY(index_.find_ref(repo, record.ref.revision));
    if (known && known->resolved_at >= record.ref.resolved_at) return {};
    return index_.put_ref(repo, record.ref);
  }

  Status take(const LockedPack& pack, const PackEntry& entry, ByteSpan payload) {
    const std::optional<RowId> content =
        CAKE_TRY(index_.find_content_by_name(entry.header.content));
    if (entry.header.kind == EntryKind::chunk) {
      PublishedExtent extent;
      extent.content = content.value_or(0);
      extent.ordinal = entry.header.ordinal;
      extent.digest = entry.header.digest;
      extent.location = Location{pack.row.id,
                                 entry.payload_offset(),
                                 entry.header.payload_bytes,
                                 entry.header.plain_bytes,
                                 entry.header.codec,
                                 entry.header.checksum};
      extents_.push_back(extent);
    }
    if (entry.header.kind == EntryKind::recipe && content) {
      const RecipeRecord record = CAKE_TRY(decode_recipe_record(payload));
      CAKE_TRY(index_.put_recipe(*content, record.recipe));
    }
    if (entry.header.kind == EntryKind::recipe_segment && content)
      for (const SegmentItem& item : CAKE_TRY(decode_segment_record(payload)))
        extents_.push_back({*content, item.ordinal, item.digest, std::nullopt, item.plain_bytes});
    return {};
  }

  // A power loss may have brought a row back that was moved here, or dropped because its bytes are
  // wrong; ours were read just now.
  Status drop_false_rows() {
    std::vector<Digest> digests;
    for (const PublishedExtent& extent : extents_) digests.push_back(extent.digest);
    const auto rows = CAKE_TRY(index_.find_chunks(digests));
    for (size_t i = 0; i < extents_.size(); i++) {
      if (!extents_[i].location || !rows[i] || rows[i] == extents_[i].location) continue;
      const Result<ChunkPtr> other = read_chunk(*rows[i], buffers_, reader_);
      if (!other) CAKE_TRY(index_.drop_chunk(digests[i], *rows[i]));
    }
    return {};
  }

  Status publish(const LockedPack& pack, uint64_t good_end) {
    // A killed process leaves bytes in the page cache only; a row must not be there before them.
    CAKE_TRY(pack.file.sync_data());
    fault_point("salvage.synced");
    CAKE_TRY(drop_false_rows());
    CAKE_TRY(index_.publish(extents_, pack.row.id, good_end));
    fault_point("salvage.published");
    if (!extents_.empty())
      log_info(cat("salvaged ", extents_.size(), " extents of ", pack.file.path()));
    extents_.clear();
    return {};
  }

  Index& index_;
  BufferPool& buffers_;
  PackReader reader_;
  std::vector<PublishedExtent> extents_;

  using Name = std::tuple<std::string, RepoName, std::string>;  // revision or commit last
  struct PinChange {
    int64_t at = 0;
    bool is_pinned = false;
  };
  std::map<Name, PinChange> pins_;
  std::map<Name, int64_t> removals_;
};

}  // namespace

namespace {

Error bad_chunk(const Location& location, std::string_view what) {
  return Error{Errc::corrupt,
               cat("chunk at ", location.offset, " of pack ", location.pack, ": ", what)};
}

}  // namespace

Status check_location(const Location& location) {
  if (location.plain_bytes > kChunkBytes || location.encoded_bytes > 2 * kChunkBytes)
    return bad_chunk(location, "impossible length");
  if (location.codec == CodecId::raw && location.encoded_bytes != location.plain_bytes)
    return bad_chunk(location, "raw, of another length");
  return {};
}

Result<ChunkPtr> decode_chunk(const Location& location, BufferPool& buffers,
                              std::shared_ptr<ChunkBuffer> payload) {
  std::shared_ptr<ChunkBuffer> plain;
  if (location.codec == CodecId::raw) {
    plain = std::move(payload);
  } else {
    const Codec* const codec = CAKE_TRY(find_codec(location.codec));
    plain = buffers.allocate(location.plain_bytes);
    CAKE_TRY(codec->decode(std::as_const(*payload).bytes(), plain->bytes()));
  }
  // Disks lie: unchecked, a flipped bit becomes a silently wrong weight.  A fast checksum is enough
  // here: the digest was checked on the way in, and reads are hot.
  if (xxh3(plain->bytes()) != location.checksum) return bad_chunk(location, "checksum differs");
  return ChunkPtr(std::move(plain));
}

Result<ChunkPtr> read_chunk(const Location& location, BufferPool& buffers,
                            const std::function<Status(MutableByteSpan)>& read) {
  CAKE_TRY(check_location(location));
  auto payload = buffers.allocate(location.encoded_bytes);
  CAKE_TRY(read(payload->bytes()));
  return decode_chunk(location, buffers, std::move(payload));
}

Result<ChunkPtr> read_chunk(const Location& location, BufferPool& buffers, PackReader& packs) {
  CAKE_TRY(check_location(location));
  auto payload =
      CAKE_TRY(packs.read(location.pack, location.offset, location.encoded_bytes, buffers));
  return decode_chunk(location, buffers, std::move(payload));
}

Status salvage(const std::string& directory, Index& index, BufferPool& buffers,
               std::span<LockedPack> packs) {
  Salvage work(directory, index, buffers);
  for (LockedPack& pack : packs) CAKE_TRY(work.collect_changes(pack));
  for (LockedPack& pack : packs) CAKE_TRY(work.salvage_names(pack));
  CAKE_TRY(work.salvage_pins());
  for (LockedPack& pack : packs) CAKE_TRY(work.salvage_chunks(pack));
  return {};
}

Status salvage_directory(const std::string& directory, Index& index, BufferPool& buffers) {
  // Files before rows: a file without a row in a later list has no writer that is about to add it,
  // once its lock can be taken.
  const std::vector<std::string> names = CAKE_TRY(list_directory(directory));
  std::vector<Index::PackRow> rows = CAKE_TRY(index.list_packs());
  std::set<std::string> known;
  for (const Index::PackRow& row : rows) known.insert(row.name);
  for (const std::string& name : names)
    if (name.ends_with(".pack") && !known.contains(name)) {
      const File file = CAKE_TRY(File::open(directory + "/" + name, File::Mode::read_write));
      if (!CAKE_TRY(file.try_lock({}, true))) continue;
      rows.push_back({CAKE_TRY(index.add_pack(name)), name, 0, false});
    }

  std::vector<LockedPack> packs;
  for (const Index::PackRow& row : rows) {
    if (row.sealed) continue;
    auto locked = lock_pack(directory, index, row);
    if (!locked) {
      log_warn(cat("pack left alone: ", locked.error().message));
      continue;
    }
    if (*locked && CAKE_TRY((*locked)->file.size()) > (*locked)->row.committed_bytes)
      packs.push_back(std::move(**locked));
  }
  return salvage(directory, index, buffers, packs);
}

}  // namespace cake
