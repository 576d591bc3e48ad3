#include "store/pack.h"

#include <fcntl.h>

#include <algorithm>
#include <random>
#include <utility>

#include "store/base/clock.h"
#include "store/base/fault.h"
#include "store/base/log.h"

namespace cake {

namespace {

constexpr std::string_view kPackMagic = "CAKEPACK";
constexpr uint32_t kPackVersion = 1;
constexpr uint32_t kEntryMagic = 0x31454b43;  // "CKE1"
// Bytes looked at together while scanning.
constexpr size_t kWindowBytes = 64 * kKiB;

// The random part of names and uuids.
uint64_t random_u64() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

void put_bytes(std::byte* out, ByteSpan bytes) {
  std::memcpy(out, bytes.data(), bytes.size());
}

}  // namespace

// --- Headers ---

std::array<std::byte, kPackHeaderBytes> encode_pack_header(const PackHeader& header) {
  std::array<std::byte, kPackHeaderBytes> bytes{};
  put_bytes(&bytes[0], as_bytes(kPackMagic));
  store_le(&bytes[8], kPackVersion);
  store_le(&bytes[12], static_cast<uint32_t>(kPackHeaderBytes));
  put_bytes(&bytes[16], header.uuid);
  store_le(&bytes[32], header.created_at);
  store_le(&bytes[56], xxh3(ByteSpan(bytes).first(56)));
  return bytes;
}

Result<PackHeader> decode_pack_header(ByteSpan bytes) {
  if (bytes.size() < kPackHeaderBytes || as_text(bytes.first(8)) != kPackMagic)
    return Error{Errc::corrupt, "not a pack"};
  if (load_le32(&bytes[8]) != kPackVersion)
    return Error{Errc::unsupported, cat("pack version ", load_le32(&bytes[8]))};
  if (load_le64(&bytes[56]) != xxh3(bytes.first(56)))
    return Error{Errc::corrupt, "pack header is damaged"};
  PackHeader header;
  put_bytes(header.uuid.data(), bytes.subspan(16, 16));
  header.created_at = static_cast<int64_t>(load_le64(&bytes[32]));
  return header;
}

std::array<std::byte, kEntryHeaderBytes> encode_entry_header(const EntryHeader& header,
                                                             const PackHeader& pack,
                                                             uint64_t offset) {
  std::array<std::byte, kEntryHeaderBytes> bytes{};
  store_le(&bytes[0], kEntryMagic);
  bytes[4] = static_cast<std::byte>(header.kind);
  bytes[5] = static_cast<std::byte>(header.codec);
  bytes[6] = static_cast<std::byte>(header.dtype);
  store_le(&bytes[8], header.payload_bytes);
  store_le(&bytes[12], header.plain_bytes);
  store_le(&bytes[16], header.ordinal);
  store_le(&bytes[24], header.checksum);
  put_bytes(&bytes[32], header.digest.bytes);
  put_bytes(&bytes[64], header.content.bytes);
  put_bytes(&bytes[96], ByteSpan(pack.uuid).first(8));
  store_le(&bytes[104], offset);
  store_le(&bytes[112], header.written_at);
  store_le(&bytes[120], xxh3(ByteSpan(bytes).first(120)));
  return bytes;
}

std::optional<EntryHeader> decode_entry_header(ByteSpan bytes, const PackHeader& pack,
                                               uint64_t offset) {
  if (bytes.size() < kEntryHeaderBytes || load_le32(bytes.data()) != kEntryMagic)
    return std::nullopt;
  if (load_le64(&bytes[120]) != xxh3(bytes.first(120))) return std::nullopt;
  if (load_le64(&bytes[96]) != load_le64(pack.uuid.data()) || load_le64(&bytes[104]) != offset)
    return std::nullopt;
  EntryHeader header;
  header.kind = static_cast<EntryKind>(bytes[4]);
  header.codec = static_cast<CodecId>(bytes[5]);
  header.dtype = static_cast<Dtype>(bytes[6]);
  header.payload_bytes = load_le32(&bytes[8]);
  header.plain_bytes = load_le32(&bytes[12]);
  header.ordinal = load_le64(&bytes[16]);
  header.checksum = load_le64(&bytes[24]);
  put_bytes(header.digest.bytes.data(), bytes.subspan(32, 32));
  put_bytes(header.content.bytes.data(), bytes.subspan(64, 32));
  header.written_at = static_cast<int64_t>(load_le64(&bytes[112]));
  if (header.payload_bytes > kMaxPayloadBytes) return std::nullopt;
  return header;
}

uint64_t entry_offset(uint64_t end, uint64_t payload_bytes) {
  return align_up(end, payload_bytes >= kBigPayloadBytes ? kBigAlignment : kSmallAlignment);
}

// --- Scanning ---

namespace {

// A part of the file in memory, moved along as the scan needs it.
class Window {
 public:
  Window(const File& file, uint64_t file_bytes) : file_(file), file_bytes_(file_bytes) {}

  // What is at hand from `offset` on: at least `want` bytes unless the file ends before.
  Result<ByteSpan> at(uint64_t offset, size_t want) {
    if (offset < start_ || offset + want > start_ + valid_) {
      start_ = offset;
      const auto length = std::min<uint64_t>(kWindowBytes, file_bytes_ - offset);
      valid_ = CAKE_TRY(file_.read_at(offset, MutableByteSpan(bytes_).first(length)));
    }
    const size_t skip = std::min<uint64_t>(offset - start_, valid_);
    return ByteSpan(bytes_).first(valid_).subspan(skip);
  }

 private:
  const File& file_;
  const uint64_t file_bytes_;
  Buffer bytes_ = Buffer(kWindowBytes);
  uint64_t start_ = 0;
  size_t valid_ = 0;
};

// The next place, a multiple of 64 behind `offset`, that is worth a look: zeros are passed over,
// and holes without reading them (an evicted pack can be gigabytes of nothing).
Result<uint64_t> next_candidate(const File& file, ByteSpan at_hand, uint64_t offset) {
  const auto is_set = [](std::byte byte) { return byte != std::byte{0}; };
  const auto found = std::find_if(at_hand.begin(), at_hand.end(), is_set);
  if (found == at_hand.begin()) return offset + kSmallAlignment;
  const uint64_t passed = static_cast<uint64_t>(found - at_hand.begin());
  uint64_t next = offset + passed;
  if (found == at_hand.end()) next = CAKE_TRY(file.find_data(next));
  return std::max(offset + kSmallAlignment, next & ~(kSmallAlignment - 1));
}

}  // namespace

Status scan_pack(const File& file, const PackHeader& pack, uint64_t from, uint64_t file_bytes,
                 const std::function<Status(const PackEntry&)>& each) {
  Window window(file, file_bytes);
  uint64_t offset = align_up(std::max(from, kPackHeaderBytes), kSmallAlignment);
  while (offset < file_bytes && file_bytes - offset >= kEntryHeaderBytes) {
    const ByteSpan bytes = CAKE_TRY(window.at(offset, kEntryHeaderBytes));
    if (bytes.size() < kEntryHeaderBytes) return {};  // truncated under us
    const std::optional<EntryHeader> header = decode_entry_header(bytes, pack, offset);
    const uint64_t room = file_bytes - offset - kEntryHeaderBytes;
    if (!header || header->payload_bytes > room) {
      offset = CAKE_TRY(next_candidate(file, bytes, offset));
      continue;
    }
    const PackEntry entry{*header, offset};
    CAKE_TRY(each(entry));
    offset = align_up(entry.end(), kSmallAlignment);
  }
  return {};
}

// --- Files ---

Result<LockedPack> create_pack(const std::string& directory, Index& index) {
  uint32_t number = 1;
  for (const Index::PackRow& row : CAKE_TRY(index.list_packs())) number = row.id + 1;
  std::array<std::byte, 8> random{};
  store_le(random.data(), random_u64());
  const std::string digits = std::to_string(number);
  LockedPack pack;
  // The number is for the eye; the random part makes the name unique among processes.
  pack.row.name = cat(std::string(8 - std::min<size_t>(8, digits.size()), '0'), digits, "-",
                      hex(random), ".pack");
  // Under its name a pack is whole and locked: who salvages never sees one in the making.
  const std::string path = directory + "/" + pack.row.name;
  pack.file = CAKE_TRY(File::open(path + ".new", File::Mode::create_new));
  if (!CAKE_TRY(pack.file.try_lock({}, true)))
    return Error{Errc::io, cat(path, ".new was taken while it was made")};
  store_le(&pack.header.uuid[0], random_u64());
  store_le(&pack.header.uuid[8], random_u64());
  pack.header.created_at = unix_now();
  CAKE_TRY(pack.file.write_at(0, encode_pack_header(pack.header)));
  CAKE_TRY(pack.file.sync_data());
  CAKE_TRY(rename_file(path + ".new", path));
  pack.file = File(pack.file.release(), path);
  CAKE_TRY(sync_directory(directory));
  fault_point("pack.created");
  pack.row.id = CAKE_TRY(index.add_pack(pack.row.name));
  pack.row.committed_bytes = kPackHeaderBytes;
  fault_point("pack.added");
  return pack;
}

Result<std::optional<LockedPack>> lock_pack(const std::string& directory, Index& index,
                                            const Index::PackRow& row) {
  auto opened = File::open(directory + "/" + row.name, File::Mode::read_write);
  if (!opened && opened.error().code == Errc::not_found) return std::nullopt;
  LockedPack pack;
  pack.file = CAKE_TRY(std::move(opened));
  if (!CAKE_TRY(pack.file.try_lock({}, true))) return std::nullopt;
  // Its last writer may have gone on after the row was read.
  const std::optional<Index::PackRow> now = CAKE_TRY(index.find_pack(row.id));
  if (!now || now->sealed) return std::nullopt;
  pack.row = *now;
  pack.row.committed_bytes = std::max(pack.row.committed_bytes, kPackHeaderBytes);
  std::array<std::byte, kPackHeaderBytes> bytes{};
  CAKE_TRY(pack.file.read_exactly_at(0, bytes));
  auto header = decode_pack_header(bytes);
  if (!header) return header.error().with(pack.file.path());
  pack.header = *header;
  return pack;
}

// --- PackWriter ---

uint64_t PackWriter::next_entry(uint64_t end, bool is_behind_big, uint64_t payload_bytes) const {
  return entry_offset(is_behind_big ? align_up(end, kBigAlignment) : end, payload_bytes);
}

uint64_t PackWriter::end_after(std::span<const NewEntry> entries) const {
  uint64_t end = end_;
  for (const NewEntry& entry : entries)
    end = align_up(end, kBigAlignment) + kEntryHeaderBytes + entry.payload.size();
  return align_up(end, kBigAlignment);
}

Result<std::vector<uint64_t>> PackWriter::append(std::span<const NewEntry> entries, Way way) {
  static const std::array<std::byte, kBigAlignment> kZeros{};
  std::vector<std::array<std::byte, kEntryHeaderBytes>> headers(entries.size());
  std::vector<ByteSpan> parts;
  std::vector<uint64_t> payload_offsets;
  // What comes before the first large entry shares a block with what is there already.
  std::optional<size_t> direct_part;
  uint64_t direct_offset = 0;
  uint64_t end = end_;
  bool is_behind_big = last_is_big_;
  for (size_t i = 0; i < entries.size(); i++) {
    const NewEntry& entry = entries[i];
    CAKE_CHECK(entry.payload.size() == entry.header.payload_bytes &&
               entry.payload.size() <= kMaxPayloadBytes);
    const uint64_t offset = next_entry(end, is_behind_big, entry.payload.size());
    is_behind_big = entry.payload.size() >= kBigPayloadBytes;
    headers[i] = encode_entry_header(entry.header, pack_.header, offset);
    parts.push_back(ByteSpan(kZeros).first(offset - end));
    if (is_behind_big && !direct_part) {
      direct_part = parts.size();
      direct_offset = offset;
    }
    parts.push_back(headers[i]);
    parts.push_back(entry.payload);
    payload_offsets.push_back(offset + kEntryHeaderBytes);
    end = payload_offsets.back() + entry.payload.size();
  }
  const std::span<const ByteSpan> all = parts;
  // Until all is written, nothing is known to be zeros.
  const uint64_t zeroed_end = std::exchange(zeroed_end_, 0);
  size_t cached_parts = all.size();
  if (way == Way::past_cache && direct_part &&
      CAKE_TRY(write_direct(direct_offset, all.subspan(*direct_part))))
    cached_parts = *direct_part;
  const bool is_zeroed = cached_parts == 1 && direct_offset <= zeroed_end;
  if (!is_zeroed) CAKE_TRY(pack_.file.write_parts_at(end_, all.first(cached_parts)));
  if (cached_parts < all.size()) zeroed_end_ = align_up(end, kBigAlignment);
  end_ = end;
  last_is_big_ = is_behind_big;
  return payload_offsets;
}

// False where that cannot be done: on a device with larger blocks, it shows only now.
Result<bool> PackWriter::write_direct(uint64_t offset, std::span<const ByteSpan> parts) {
  if (!direct_.is_open()) return false;
  const Status written = direct_.write_parts_at(offset, parts);
  if (written) return true;
  if (written.error().code == Errc::no_space) return written.error();
  log_info(written.error().with("writing through the page cache from now on").message);
  direct_ = DirectFile();
  return false;
}

// --- PackReader ---

Result<PackReader::FilesPtr> PackReader::get_files(uint32_t pack) {
  {
    MutexLock lock(mutex_);
    const auto found = open_.find(pack);
    if (found != open_.end()) {
      ages_.splice(ages_.begin(), ages_, found->second.age);
      return found->second.files;
    }
  }
  const std::optional<Index::PackRow> row = CAKE_TRY(index_.find_pack(pack));
  if (!row) return Error{Errc::not_found, cat("pack ", pack, " is gone")};
  auto opened = std::make_shared<Files>();
  const std::string path = directory_ + "/" + row->name;
  opened->cached = CAKE_TRY(File::open(path, File::Mode::read));
  // Some file systems refuse it; then the page cache is used, and given back after each read.
  if (Result<File> direct = File::open(path, File::Mode::read, O_DIRECT))
    opened->direct = std::move(direct).value();
  close_removed();
  FilesPtr dropped;  // closed without the lock
  MutexLock lock(mutex_);
  if (open_.contains(pack)) return open_[pack].files;
  ages_.push_front(pack);
  open_[pack] = {opened, ages_.begin()};
  if (open_.size() > kMaxOpenPacks) {
    dropped = open_[ages_.back()].files;
    open_.erase(ages_.back());
    ages_.pop_back();
  }
  return FilesPtr(opened);
}

void PackReader::close_removed() {
  std::vector<std::pair<uint32_t, FilesPtr>> known;
  {
    MutexLock lock(mutex_);
    for (const auto& [pack, open] : open_) known.emplace_back(pack, open.files);
  }
  std::erase_if(known, [](const auto& one) { return path_exists(one.second->cached.path()); });
  MutexLock lock(mutex_);
  for (const auto& [pack, files] : known) {
    const auto found = open_.find(pack);
    if (found == open_.end() || found->second.files != files) continue;
    ages_.erase(found->second.age);
    open_.erase(found);
  }
}

Status PackReader::read(uint32_t pack, uint64_t offset, MutableByteSpan out) {
  const FilesPtr files = CAKE_TRY(get_files(pack));
  return files->cached.read_exactly_at(offset, out);
}

Result<std::shared_ptr<ChunkBuffer>> PackReader::read(uint32_t pack, uint64_t offset, size_t bytes,
                                                      BufferPool& buffers) {
  const FilesPtr files = CAKE_TRY(get_files(pack));
  // Small entries share blocks with their neighbours, which are read next: worth caching.
  const bool is_big = bytes >= kBigPayloadBytes;
  if (is_big && files->direct.is_open()) {
    auto buffer = buffers.allocate_direct(offset, bytes);
    const uint64_t lead = offset % kDirectAlignment;
    const Result<size_t> got = files->direct.read_direct_at(offset - lead, buffer->direct_bytes());
    if (got && *got < lead + bytes)
      return Error{Errc::corrupt, cat(files->direct.path(), " ends at ", offset - lead + *got,
                                      ", wanted ", bytes, " bytes from ", offset)};
    if (got) return buffer;
    // A device with larger blocks, or a file system that opens so and does not read: shows only
    // now.  What cannot be read at all fails below too.
  }
  auto buffer = buffers.allocate(bytes);
  CAKE_TRY(files->cached.read_exactly_at(offset, buffer->bytes()));
  if (is_big) files->cached.drop_cache({offset, bytes});
  return buffer;
}

}  // namespace cake
