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

  // `has_all_names`: no other pack can tell what a content is called.
  Status salvage_chunks(LockedPack& pack, bool has_all_names) {
    extents_.clear();  // of a pack that failed
    uint64_t good_end = pack.row.committed_bytes;
    bool is_unnamed = false;
    const auto each = [&](const PackEntry& entry) -> Status {
      const std::optional<ChunkPtr> payload = CAKE_TRY(read_entry(pack, entry, buffers_));
      if (!payload) return {};
      const std::optional<RowId> content =
          CAKE_TRY(index_.find_content_by_name(entry.header.content));
      is_unnamed = !content && !entry.header.content.is_zero() && !has_all_names;
      if (is_unnamed) return Error{Errc::not_found, pack.file.path() + ": a content has no name"};
      good_end = entry.end();
      CAKE_TRY(pass_over_damage(pack, entry, take(pack, entry, content, (*payload)->bytes())));
      return extents_.size() < kSalvagePortion ? Status() : publish(pack, good_end);
    };
    const Status scanned = scan(pack, each);
    // What is before it has its rows; it is come back to once the name is known.
    if (is_unnamed) CAKE_TRY(publish(pack, good_end));
    CAKE_TRY(scanned);
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

  Status take(const LockedPack& pack, const PackEntry& entry, std::optional<RowId> content,
              ByteSpan payload) {
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

Status salvage(const std::string& directory, Index& index, BufferPool& buffers, LockedPack& pack) {
  Salvage work(directory, index, buffers);
  CAKE_TRY(work.collect_changes(pack));
  CAKE_TRY(work.salvage_names(pack));
  CAKE_TRY(work.salvage_pins());
  return work.salvage_chunks(pack, false);
}

namespace {

// What was killed while it made a pack.  Its maker had the lock before it wrote a byte.
Status remove_unfinished(const std::string& path) {
  const Result<File> file = File::open(path, File::Mode::read_write);
  if (!file) return file.error().code == Errc::not_found ? Status() : Status(file.error());
  if (CAKE_TRY(file->size()) == 0 || !CAKE_TRY(file->try_lock({}, true))) return {};
  // Renamed meanwhile, it is gone from here.
  return remove_file(path);
}

// Makes rows for packs that have none, and no writer that is about to add it.  False: somebody has
// one of them.
Result<bool> add_unknown_packs(const std::string& directory, Index& index) {
  // Files before rows: a file without a row in a later list has no such writer, once its lock can
  // be taken.
  const std::vector<std::string> names = CAKE_TRY(list_directory(directory));
  std::set<std::string> known;
  for (const Index::PackRow& row : CAKE_TRY(index.list_packs())) known.insert(row.name);
  bool has_all = true;
  for (const std::string& name : names) {
    const std::string path = directory + "/" + name;
    if (name.ends_with(".pack.new")) CAKE_TRY(remove_unfinished(path));
    if (!name.ends_with(".pack") || known.contains(name)) continue;
    const Result<File> file = File::open(path, File::Mode::read_write);
    if (!file && file.error().code == Errc::not_found) continue;
    if (!file) return file.error();
    if (!CAKE_TRY(file->try_lock({}, true))) {
      has_all = false;
      continue;
    }
    // Who unlinks it has the lock until it is done.
    if (path_exists(path)) CAKE_TRY(index.add_pack(name));
  }
  return has_all;
}

// The packs that may have a tail; one is open at a time, for there may be more than descriptors.
class Tails {
 public:
  // `has_all`: these are all packs.
  Tails(const std::string& directory, Index& index, std::vector<Index::PackRow> rows, bool has_all)
      : directory_(directory), index_(index), rows_(std::move(rows)), has_all_(has_all) {}

  // Packs for which it fails are logged, and not looked at again.
  void each(const std::function<Status(LockedPack&)>& work) {
    std::erase_if(rows_, [&](const Index::PackRow& row) {
      Result<std::optional<LockedPack>> pack = lock_pack(directory_, index_, row);
      // What is no pack tells no names; what another process writes may.
      if (pack ? !*pack : pack.error().code != Errc::corrupt) has_all_ = false;
      Status done = pack ? Status() : Status(pack.error());
      if (pack && *pack) {
        done = look_at(**pack, work);
        if (!done) has_all_ = false;
      }
      if (!done) log_warn(done.error().with(cat("pack ", row.name, " left alone")).message);
      return !done;
    });
  }
  // All packs could be read so far.
  bool has_all() const { return has_all_; }

 private:
  static Status look_at(LockedPack& pack, const std::function<Status(LockedPack&)>& work) {
    if (CAKE_TRY(pack.file.size()) <= pack.row.committed_bytes) return {};
    return work(pack);
  }

  const std::string& directory_;
  Index& index_;
  std::vector<Index::PackRow> rows_;
  bool has_all_;
};

}  // namespace

Status salvage_directory(const std::string& directory, Index& index, BufferPool& buffers) {
  // Two that make a lost index again would each have only some of the names.
  const File turn = CAKE_TRY(File::open(directory + ".lock", File::Mode::create));
  CAKE_TRY(turn.lock({}, true));
  const bool has_all = CAKE_TRY(add_unknown_packs(directory, index));
  std::vector<Index::PackRow> rows = CAKE_TRY(index.list_packs());
  std::erase_if(rows, [](const Index::PackRow& row) { return row.sealed; });
  Tails tails(directory, index, std::move(rows), has_all);
  Salvage work(directory, index, buffers);
  tails.each([&](LockedPack& pack) { return work.collect_changes(pack); });
  tails.each([&](LockedPack& pack) { return work.salvage_names(pack); });
  CAKE_TRY(work.salvage_pins());
  const bool has_all_names = tails.has_all();
  tails.each([&](LockedPack& pack) { return work.salvage_chunks(pack, has_all_names); });
  return {};
}

}  // namespace cake
