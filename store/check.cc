#include "store/check.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "store/base/log.h"
#include "store/evict.h"
#include "store/index_upkeep.h"
#include "store/materialize.h"
#include "store/pack.h"
#include "store/pack_record.h"
#include "store/recipe.h"
#include "store/salvage.h"

namespace cake {

namespace {

using Kind = CheckProblem::Kind;

// Where a row says its chunk is; small, for there may be millions.
struct Place {
  uint32_t pack = 0;
  uint32_t encoded_bytes = 0;
  uint64_t offset = 0;
  auto operator<=>(const Place&) const = default;  // NOLINT(modernize-use-nullptr)
};

class Check {
 public:
  Check(Store& store, const CheckOptions& options) : store_(store), options_(options) {}

  Result<CheckReport> run() {
    // What this process has in hand would look like a pack's unindexed tail.
    CAKE_TRY(store_.chunks().flush());
    for (const std::string& line : CAKE_TRY(store_.upkeep().integrity_problems()))
      note(Kind::index_damaged, line, false);
    CAKE_TRY(check_packs());
    CAKE_TRY(check_chunks());
    CAKE_TRY(check_recorded());
    CAKE_TRY(check_recipes());
    CAKE_TRY(check_names());
    // Damaged chunks' bytes too, whose rows are gone now.
    if (options_.repairs)
      if (const auto freed = store_.evictor().give_back_unnamed(); !freed)
        log_warn(freed.error().with("bytes that nothing names stay where they are").message);
    return report_;
  }

 private:
  struct OpenPack {
    File file;
    PackHeader header;
    uint64_t bytes = 0;
  };

  void note(Kind kind, std::string what, bool is_repaired) {
    report_.problem_count++;
    if (is_repaired) report_.repaired_count++;
    if (report_.problems.size() < CheckReport::kMaxListed)
      report_.problems.push_back({kind, std::move(what), is_repaired});
  }

  Status go_on() const {
    if (options_.cancel && options_.cancel->is_cancelled())
      return Error{Errc::cancelled, "the check was interrupted"};
    return {};
  }

  std::string packs_directory() const { return store_.directory() + "/packs"; }

  // --- packs ---

  Status check_packs() {
    std::set<std::string> known;
    whole_packs_ = CAKE_TRY(store_.upkeep().whole_packs());
    for (const Index::PackRow& row : CAKE_TRY(store_.index().list_packs())) {
      known.insert(row.name);
      report_.packs++;
      // Has no header; its chunks are looked at one by one.
      if (is_whole(row.id)) continue;
      const Result<OpenPack> pack = open_pack(row);
      if (pack) continue;
      const Errc code = pack.error().code;
      if (code == Errc::unsupported) continue;  // a newer program's; it knows what is in it
      if (code != Errc::not_found && code != Errc::corrupt) return pack.error();
      // The rows of its chunks are found and dropped with the others.
      const Result<OpenPack> start = open_short(row);
      bool is_repaired = options_.repairs;
      if (start)
        short_packs_.emplace(row.id, start->bytes);
      else if (options_.repairs)
        is_repaired = CAKE_TRY(take_lost(row));
      note(code == Errc::corrupt ? Kind::pack_damaged : Kind::pack_missing, pack.error().message,
           is_repaired);
    }
    bool has_unknown = false;
    for (const std::string& name : CAKE_TRY(list_directory(packs_directory()))) {
      if (!name.ends_with(".pack") || known.contains(name)) continue;
      // One in the making, whose writer has not added its row yet.
      const auto file = File::open(packs_directory() + "/" + name, File::Mode::read_write);
      if (!file || !CAKE_TRY(file->try_lock({}, true))) continue;
      has_unknown = true;
      note(Kind::pack_unknown, packs_directory() + "/" + name, options_.repairs);
    }
    if (has_unknown && options_.repairs)
      CAKE_TRY(salvage_directory(packs_directory(), store_.index(), store_.buffers()));
    return {};
  }

  // To be unlinked.  False when somebody appends to it: it is left to a later check.
  Result<bool> take_lost(const Index::PackRow& row) {
    LostPack pack{row, {}};
    Result<File> file = File::open(packs_directory() + "/" + row.name, File::Mode::read_write);
    if (file || file.error().code != Errc::not_found) {
      pack.locked = CAKE_TRY(std::move(file));
      if (!CAKE_TRY(pack.locked.try_lock({}, true))) return false;
    }
    lost_packs_.push_back(std::move(pack));
    return true;
  }

  Result<OpenPack> open_pack(const Index::PackRow& row) const {
    OpenPack pack;
    pack.file = CAKE_TRY(File::open(packs_directory() + "/" + row.name, File::Mode::read));
    pack.bytes = CAKE_TRY(pack.file.size());
    std::array<std::byte, kPackHeaderBytes> bytes{};
    CAKE_TRY(pack.file.read_exactly_at(0, bytes));
    auto header = decode_pack_header(bytes);
    if (!header) return header.error().with(pack.file.path());
    pack.header = *header;
    if (row.committed_bytes > pack.bytes)
      return Error{Errc::corrupt, cat(pack.file.path(), " ends at ", pack.bytes,
                                      ", but is indexed up to ", row.committed_bytes)};
    return pack;
  }

  // --- chunks ---

  Status check_chunks() {
    std::vector<Place> places;
    uint64_t total_bytes = 0, done_bytes = 0;
    std::map<Place, std::string> bad;
    CAKE_TRY(store_.upkeep().each_chunk([&](const ChunkRow& row) -> Status {
      if (is_whole(row.location.pack)) {
        const std::optional<std::string> problem = look_at_whole(row);
        if (problem)
          bad.emplace(Place{row.location.pack, row.location.encoded_bytes, row.location.offset},
                      *problem);
        whole_chunks_++;
        total_bytes += row.location.encoded_bytes;
        done_bytes += row.location.encoded_bytes;
        return go_on();
      }
      places.push_back({row.location.pack, row.location.encoded_bytes, row.location.offset});
      total_bytes += row.location.encoded_bytes;
      return go_on();
    }));
    report_.chunks = places.size() + whole_chunks_;
    report_.bytes = total_bytes;
    // As they lie on the disk.
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
      return std::pair(a.pack, a.offset) < std::pair(b.pack, b.offset);
    });
    for (const Place& place : places) {
      CAKE_TRY(go_on());
      const std::optional<std::string> problem = CAKE_TRY(look_at(place));
      if (problem) bad.emplace(place, *problem);
      done_bytes += place.encoded_bytes;
      if (options_.progress) options_.progress(done_bytes, total_bytes);
    }
    if (!bad.empty()) CAKE_TRY(report_chunks(bad));
    return options_.repairs ? repair_packs() : Status();
  }

  // Once no row leads into what is not there.
  Status repair_packs() {
    for (const auto& [id, bytes] : short_packs_) CAKE_TRY(store_.upkeep().shorten_pack(id, bytes));
    for (const LostPack& pack : lost_packs_) {
      // Without a header nobody can tell what is in it.
      if (CAKE_TRY(store_.upkeep().drop_pack(pack.row.id)))
        CAKE_TRY(remove_file(packs_directory() + "/" + pack.row.name));
    }
    lost_packs_.clear();  // and their locks
    return {};
  }

  // What is wrong, if anything is.
  Result<std::optional<std::string>> look_at(const Place& place) {
    if (!pack_ || pack_id_ != place.pack) {
      const auto row = CAKE_TRY(store_.index().find_pack(place.pack));
      if (!row) return std::optional<std::string>("its pack has no row");
      auto opened = open_pack(*row);
      // A pack that is too short still has its first chunks.
      if (!opened && opened.error().code == Errc::corrupt) opened = open_short(*row);
      if (!opened && opened.error().code == Errc::unsupported) return std::optional<std::string>();
      if (!opened) return std::optional<std::string>(opened.error().message);
      pack_ = std::make_unique<OpenPack>(std::move(*opened));
      pack_id_ = place.pack;
    }
    std::array<std::byte, kEntryHeaderBytes> bytes{};
    if (place.offset < kPackHeaderBytes + kEntryHeaderBytes)
      return std::optional<std::string>("lies in a pack's header");
    const uint64_t at = place.offset - kEntryHeaderBytes;
    const Result<size_t> got = pack_->file.read_at(at, bytes);
    if (!got && got.error().code == Errc::corrupt)
      return std::optional<std::string>(got.error().message);
    const auto header = decode_entry_header(ByteSpan(bytes).first(CAKE_TRY(Result<size_t>(got))),
                                            pack_->header, at);
    if (!header || header->kind != EntryKind::chunk)
      return std::optional<std::string>("no entry is there");
    const auto rows = CAKE_TRY(store_.index().find_chunks(std::span(&header->digest, 1)));
    const Location there{place.pack,          place.offset,  header->payload_bytes,
                         header->plain_bytes, header->codec, header->checksum};
    if (!rows[0] || *rows[0] != there)
      return std::optional<std::string>("the entry is not what the row says");
    if (place.offset + place.encoded_bytes > pack_->bytes)
      return std::optional<std::string>("reaches beyond its pack");
    if (!options_.reads_chunks) return std::optional<std::string>();
    const auto plain = read_chunk(there, store_.buffers(), [&](MutableByteSpan out) {
      return pack_->file.read_exactly_at(place.offset, out);
    });
    if (!plain) return std::optional<std::string>(plain.error().message);
    if (blake3((*plain)->bytes()) != header->digest)
      return std::optional<std::string>("digest differs");
    return std::optional<std::string>();
  }

  bool is_whole(uint32_t pack) const {
    return std::binary_search(whole_packs_.begin(), whole_packs_.end(), pack);
  }

  // A chunk of a file kept whole has no entry before it: only its bytes tell.
  std::optional<std::string> look_at_whole(const ChunkRow& row) const {
    if (!options_.reads_chunks) return std::nullopt;
    const Result<ChunkPtr> plain = store_.chunks().read(row.location);
    if (!plain) return plain.error().message;
    if (blake3((*plain)->bytes()) != row.digest) return "digest differs";
    return std::nullopt;
  }

  Result<OpenPack> open_short(Index::PackRow row) const {
    row.committed_bytes = 0;
    return open_pack(row);
  }

  // Of the rows that still say so: others were evicted or moved meanwhile.
  Status report_chunks(const std::map<Place, std::string>& bad) {
    std::vector<ChunkRow> rows, whole;
    CAKE_TRY(store_.upkeep().each_chunk([&](const ChunkRow& row) -> Status {
      const auto found =
          bad.find({row.location.pack, row.location.encoded_bytes, row.location.offset});
      if (found == bad.end()) return {};
      note(Kind::chunk_damaged,
           cat("chunk ", row.digest.hex(), " at ", row.location.offset, " of pack ",
               row.location.pack, ": ", found->second),
           options_.repairs);
      (is_whole(row.location.pack) ? whole : rows).push_back(row);
      return {};
    }));
    if (!options_.repairs) return {};
    for (const ChunkRow& row : whole) CAKE_TRY(store_.index().drop_chunk(row.digest, row.location));
    // Their good chunks go into packs; a file that is in use, or has no room there, stays
    // `leaving`.
    if (!whole.empty()) {
      const auto materializer = CAKE_TRY(Materializer::connect(store_));
      CAKE_TRY(materializer->recover(UINT64_MAX));
    }
    return store_.upkeep().drop_chunks(rows, false);
  }

  // --- recipes and names ---

  // Digests of recipes against those that packs record of the same extents.  One that no chunk has
  // and that packs have otherwise would make a file that cannot be read, nor fetched, again.
  Status check_recorded() {
    for (const Index::PackRow& row : CAKE_TRY(store_.index().list_packs())) {
      if (is_whole(row.id)) continue;
      const Result<OpenPack> pack = open_short(row);
      if (!pack) continue;  // noted above
      const auto each = [&](const PackEntry& entry) -> Status {
        CAKE_TRY(go_on());
        if (entry.header.kind == EntryKind::chunk)
          return compare_recorded(
              entry.header.content,
              {entry.header.ordinal, entry.header.plain_bytes, entry.header.digest});
        if (entry.header.kind != EntryKind::recipe_segment &&
            entry.header.kind != EntryKind::recipe)
          return {};
        Buffer payload(entry.header.payload_bytes);
        const Status read = pack->file.read_exactly_at(entry.payload_offset(), payload);
        if (!read && read.error().code == Errc::corrupt) return {};
        CAKE_TRY(Status(read));
        if (entry.header.kind == EntryKind::recipe)
          return compare_recorded_head(entry.header, payload);
        const auto items = decode_segment_record(payload);
        if (blake3(payload) != entry.header.digest || !items) return {};  // nobody would believe it
        for (const SegmentItem& item : *items)
          CAKE_TRY(compare_recorded(entry.header.content, item));
        return {};
      };
      const Status scanned =
          scan_pack(pack->file, pack->header, 0, std::min(row.committed_bytes, pack->bytes), each);
      // Other packs are looked at all the same.  Nothing here mends a disk.
      if (!scanned && scanned.error().code == Errc::corrupt)
        note(Kind::pack_damaged, scanned.error().message, false);
      else
        CAKE_TRY(Status(scanned));
    }
    for (const auto& [content, ordinals] : wrong_digests_) {
      note(Kind::recipe_damaged,
           cat("recipe of content ", content, ": ", ordinals.size(),
               " digest(s) are not the packs'"),
           options_.repairs);
      const std::vector<uint64_t> those(ordinals.begin(), ordinals.end());
      if (options_.repairs) CAKE_TRY(store_.index().drop_digests(content, those));
    }
    return {};
  }

  // A head that is not the recorded one would cut the file elsewhere.
  Status compare_recorded_head(const EntryHeader& header, ByteSpan payload) {
    const auto recorded = decode_recipe_record(payload);
    const auto content = CAKE_TRY(store_.index().find_content_by_name(header.content));
    if (blake3(payload) != header.digest || !recorded || !content) return {};
    const auto known = store_.index().find_recipe(*content);
    if (!known || !*known || (*known)->cutter != recorded->recipe.cutter ||
        (*known)->head == recorded->recipe.head)
      return {};
    note(Kind::recipe_damaged, cat("recipe of content ", *content, ": its head is not the pack's"),
         options_.repairs);
    return options_.repairs ? store_.index().drop_recipe(*content) : Status();
  }

  Status compare_recorded(const Digest& name, const SegmentItem& recorded) {
    if (!recorded_of_ || recorded_of_->name != name) {
      recorded_of_ = RecordedOf{name, 0, std::nullopt};
      const auto id = CAKE_TRY(store_.index().find_content_by_name(name));
      const auto content = id ? CAKE_TRY(store_.index().find_content(*id)) : std::nullopt;
      // What is wrong with a recipe itself is found elsewhere.
      auto recipe = content ? load_recipe(store_.index(), *content)
                            : Result<std::optional<Recipe>>(std::nullopt);
      if (recipe && *recipe) recorded_of_ = RecordedOf{name, *id, std::move(**recipe)};
    }
    const std::optional<Recipe>& recipe = recorded_of_->recipe;
    // It may have been cut otherwise when the record was made.
    if (!recipe || recorded.ordinal >= recipe->extents.count() ||
        recipe->extents.at(recorded.ordinal).length != recorded.plain_bytes)
      return {};
    const Digest known =
        CAKE_TRY(store_.index().find_digests(recorded_of_->content, recorded.ordinal, 1)).front();
    if (known.is_zero() || known == recorded.digest) return {};
    if (CAKE_TRY(store_.index().find_chunks({&known, 1})).front()) return {};
    wrong_digests_[recorded_of_->content].insert(recorded.ordinal);
    return {};
  }

  Status check_recipes() {
    for (const RowId content : CAKE_TRY(store_.upkeep().all_contents())) {
      CAKE_TRY(go_on());
      report_.contents++;
      const Status sums = CAKE_TRY(store_.upkeep().check_segments(content, options_.repairs));
      if (!sums) note(Kind::recipe_damaged, sums.error().message, options_.repairs);
      const std::optional<ContentRow> row = CAKE_TRY(store_.index().find_content(content));
      if (!row) continue;
      const auto recipe = load_recipe(store_.index(), *row);
      if (recipe) continue;
      const Errc code = recipe.error().code;
      // A cut that this program does not know may be a newer one's.
      if (code != Errc::corrupt && code != Errc::unsupported) return recipe.error();
      const bool is_repaired = options_.repairs && code == Errc::corrupt;
      if (is_repaired) CAKE_TRY(store_.index().drop_recipe(content));
      note(Kind::recipe_damaged, recipe.error().message, is_repaired);
    }
    return {};
  }

  Status check_names() {
    const std::vector<RowId> contents = CAKE_TRY(store_.upkeep().all_contents());
    Index& index = store_.index();
    for (const std::string& source : CAKE_TRY(index.list_sources()))
      for (const RepoRow& repo : CAKE_TRY(index.list_repos(source)))
        for (const SnapshotRow& row : CAKE_TRY(index.list_snapshots(repo.id))) {
          CAKE_TRY(go_on());
          report_.snapshots++;
          CAKE_TRY(check_snapshot(repo, row.commit, contents));
        }
    return {};
  }

  Status check_snapshot(const RepoRow& repo, const std::string& commit,
                        const std::vector<RowId>& contents) {
    const auto snapshot = store_.index().find_snapshot(repo.id, commit);
    std::string problem;
    if (!snapshot && snapshot.error().code != Errc::corrupt) return snapshot.error();
    if (!snapshot) problem = snapshot.error().message;
    if (snapshot && *snapshot == nullptr) return {};  // removed meanwhile
    if (snapshot)
      for (uint32_t i = 0; i < (*snapshot)->entries().size() && problem.empty(); i++)
        problem = CAKE_TRY(look_at_name(repo, **snapshot, i, contents));
    if (problem.empty()) return {};
    // Looked up again when it is next used.
    if (options_.repairs) CAKE_TRY(store_.upkeep().drop_snapshots(repo.id, commit));
    note(Kind::name_damaged, cat(repo.name.id, "@", commit, ": ", problem), options_.repairs);
    return {};
  }

  // What is wrong with an entry; empty if nothing is.
  Result<std::string> look_at_name(const RepoRow& repo, const Snapshot& snapshot, uint32_t entry,
                                   const std::vector<RowId>& contents) {
    const RowId id = snapshot.content_id(entry);
    const TreeEntry& name = snapshot.entries()[entry];
    if (!std::binary_search(contents.begin(), contents.end(), id))
      return cat(name.path, " has no content row");
    const std::optional<ContentRow> content = CAKE_TRY(store_.index().find_content(id));
    if (!content) return cat(name.path, " has a content of no repo");
    if (content->bytes != name.bytes)
      return cat(name.path, " has ", name.bytes, " bytes, its content ", content->bytes);
    // The content knows the last place that it was seen at.
    if (content->repo != repo.name || content->commit != snapshot.commit()) return std::string();
    const std::optional<uint32_t> place = snapshot.find_entry(content->path);
    if (!place || snapshot.content_id(*place) != id)
      return cat(name.path, " is not at ", content->path, ", where it was seen");
    return std::string();
  }

  Store& store_;
  const CheckOptions& options_;
  CheckReport report_;
  std::vector<uint32_t> whole_packs_;  // sorted
  uint64_t whole_chunks_ = 0;
  std::map<uint32_t, uint64_t> short_packs_;  // and how long they are
  struct LostPack {
    Index::PackRow row;
    File locked;  // not open when the file is missing
  };
  std::vector<LostPack> lost_packs_;  // gone, or without a header
  std::unique_ptr<OpenPack> pack_;    // the one looked at last
  uint32_t pack_id_ = 0;
  struct RecordedOf {
    Digest name;
    RowId content = 0;
    std::optional<Recipe> recipe;
  };
  std::optional<RecordedOf> recorded_of_;  // the content looked at last
  std::map<RowId, std::set<uint64_t>> wrong_digests_;
};

}  // namespace

std::string_view check_kind_name(Kind kind) {
  switch (kind) {
    case Kind::index_damaged:
      return "index_damaged";
    case Kind::pack_missing:
      return "pack_missing";
    case Kind::pack_damaged:
      return "pack_damaged";
    case Kind::pack_unknown:
      return "pack_unknown";
    case Kind::chunk_damaged:
      return "chunk_damaged";
    case Kind::recipe_damaged:
      return "recipe_damaged";
    case Kind::name_damaged:
      return "name_damaged";
  }
  return "unknown";
}

Result<CheckReport> check_store(Store& store, const CheckOptions& options) {
  return Check(store, options).run();
}

Status set_index_aside(const std::string& directory) {
  if (CAKE_TRY(Lease::live_processes(directory)) > 0)
    return Error{Errc::invalid, cat("store ", directory,
                                    " is in use; unmount it and end the commands that use it")};
  for (const std::string_view suffix : {"", "-wal", "-shm"}) {
    const std::string path = cat(directory, "/index.db", suffix);
    if (path_exists(path)) CAKE_TRY(rename_file(path, cat(directory, "/index.db.broken", suffix)));
  }
  return sync_directory(directory);
}

}  // namespace cake
