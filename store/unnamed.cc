#include "store/unnamed.h"

#include <algorithm>
#include <utility>

#include "store/base/log.h"
#include "store/pack.h"
#include "store/punch.h"

namespace cake {

namespace {

constexpr std::string_view kPackSuffix = ".pack";
// Punched together: bounds memory.
constexpr size_t kMaxEntries = 20'000;

// An entry that a row names; small, for there may be millions.
struct Named {
  uint32_t pack = 0;
  uint32_t encoded_bytes = 0;
  uint64_t offset = 0;
};

bool is_before(const Named& a, const Named& b) {
  return std::pair(a.pack, a.offset) < std::pair(b.pack, b.offset);
}

// One pack: what lies between the named entries.
class Sweep {
 public:
  Sweep(File file, PackHeader header) : file_(std::move(file)), header_(header) {}

  Status run(const Index::PackRow& row, std::span<const Named> named) {
    uint64_t from = kPackHeaderBytes;
    for (const Named& entry : named) {
      const ByteRange range =
          entry_range({entry.pack, entry.offset, entry.encoded_bytes, 0, CodecId::raw, 0});
      CAKE_TRY(look_at(row.id, from, range.offset));
      from = std::max(from, range.end());
    }
    CAKE_TRY(look_at(row.id, from, row.committed_bytes));
    return punch();
  }

  const File& file() const { return file_; }
  uint64_t freed() const { return freed_; }
  bool has_records() const { return has_records_; }

 private:
  Status look_at(uint32_t pack, uint64_t from, uint64_t end) {
    if (from + kEntryHeaderBytes > end) return {};
    return scan_pack(file_, header_, from, end, [&](const PackEntry& entry) -> Status {
      const EntryHeader& header = entry.header;
      if (header.kind != EntryKind::chunk) {
        has_records_ = true;
        return {};
      }
      unnamed_.push_back({pack, entry.payload_offset(), header.payload_bytes, header.plain_bytes,
                          header.codec, header.checksum});
      return unnamed_.size() < kMaxEntries ? Status() : punch();
    });
  }

  Status punch() {
    freed_ += CAKE_TRY(punch_entries(file_, std::exchange(unnamed_, {})));
    return {};
  }

  File file_;
  PackHeader header_;
  std::vector<Location> unnamed_;
  uint64_t freed_ = 0;
  bool has_records_ = false;
};

// nullopt: gone, or not a pack, which check_store reports.
Result<std::optional<Sweep>> open_pack(const std::string& path) {
  Result<File> file = File::open(path, File::Mode::read_write);
  if (!file && file.error().code == Errc::not_found) return std::nullopt;
  if (!file) return file.error();
  std::array<std::byte, kPackHeaderBytes> bytes{};
  const size_t got = CAKE_TRY(file->read_at(0, bytes));
  const Result<PackHeader> header = decode_pack_header(ByteSpan(bytes).first(got));
  if (!header) return std::nullopt;
  return std::optional<Sweep>(Sweep(std::move(file).value(), *header));
}

// Of a sealed pack, once nobody writes it or waits for its rows.
Status tidy(const Index::PackRow& row, const Sweep& pack, bool is_empty, IndexUpkeep& upkeep,
            Index& index) {
  if (!row.sealed || !CAKE_TRY(pack.file().try_lock({}, true))) return {};
  if (CAKE_TRY(pack.file().size()) > row.committed_bytes)
    CAKE_TRY(pack.file().truncate(row.committed_bytes));
  if (!is_empty) return {};
  // Stays where a row has come meanwhile.  Row before file: a file without a row is looked at by
  // who opens the store.
  CAKE_TRY(upkeep.drop_pack(row.id));
  if (CAKE_TRY(index.find_pack(row.id))) return {};
  log_debug(cat("removed ", pack.file().path(), ", in which nothing is left"));
  return remove_file(pack.file().path());
}

}  // namespace

Result<uint64_t> entry_pack_blocks(const std::string& packs) {
  uint64_t sum = 0;
  for (const std::string& name : CAKE_TRY(list_directory(packs))) {
    if (!name.ends_with(kPackSuffix)) continue;
    const auto bytes = path_disk_bytes(cat(packs, "/", name));
    if (!bytes && bytes.error().code == Errc::not_found) continue;  // removed just now
    sum += CAKE_TRY(Result<uint64_t>(bytes));
  }
  return sum;
}

Result<uint64_t> punch_unnamed(const std::string& packs, Index& index, IndexUpkeep& upkeep,
                               uint64_t bytes) {
  // Committed lengths before rows, or a publication between the two would have its entries taken
  // for nobody's.  A row that moves meanwhile goes behind these lengths, or into a pack without
  // entries.
  const std::vector<Index::PackRow> rows = CAKE_TRY(index.list_packs());
  std::vector<Named> named;
  CAKE_TRY(upkeep.each_chunk([&](const ChunkRow& row) -> Status {
    const Location& at = row.location;
    named.push_back({at.pack, at.encoded_bytes, at.offset});
    return {};
  }));
  std::sort(named.begin(), named.end(), is_before);
  // That rows are gone is on the disk before their bytes are.
  CAKE_TRY(index.sync());
  uint64_t freed = 0;
  const auto sweep = [&](const Index::PackRow& row) -> Status {
    std::optional<Sweep> pack = CAKE_TRY(open_pack(packs + "/" + row.name));
    if (!pack) return {};
    const auto begin = std::lower_bound(named.begin(), named.end(), Named{row.id, 0, 0}, is_before);
    const auto end = std::lower_bound(begin, named.end(), Named{row.id + 1, 0, 0}, is_before);
    const Status swept = pack->run(row, {begin, end});
    freed += pack->freed();
    CAKE_TRY(Status(swept));
    return tidy(row, *pack, begin == end && !pack->has_records(), upkeep, index);
  };
  for (const Index::PackRow& row : rows) {
    if (freed >= bytes) break;
    if (!row.name.ends_with(kPackSuffix)) continue;
    // One that cannot be read, which check_store reports, keeps nobody from the others.
    if (const Status swept = sweep(row); !swept)
      log_warn(swept.error().with("giving back what no row names").message);
  }
  return freed;
}

}  // namespace cake
