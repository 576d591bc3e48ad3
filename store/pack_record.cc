#include "store/pack_record.h"

#include <optional>

namespace cake {

namespace {

constexpr size_t kSegmentItemBytes = 44;

class RecordWriter {
 public:
  template <typename Int>
  RecordWriter& number(Int value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store_le(&bytes_[at], value);
    return *this;
  }
  RecordWriter& raw(ByteSpan bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  // Its length as a u32, then the bytes.
  RecordWriter& sized(ByteSpan bytes) {
    return number(static_cast<uint32_t>(bytes.size())).raw(bytes);
  }
  RecordWriter& text(std::string_view text) { return sized(as_bytes(text)); }
  Buffer take() { return std::move(bytes_); }

 private:
  Buffer bytes_;
};

// Past the end every read gives zeros and ok() is false.
class RecordReader {
 public:
  explicit RecordReader(ByteSpan bytes) : rest_(bytes) {}
  template <typename Int>
  Int number() {
    const ByteSpan bytes = raw(sizeof(Int));
    return bytes.empty() ? Int{0} : load_le<Int>(bytes.data());
  }
  ByteSpan raw(size_t length) {
    if (length > rest_.size()) ok_ = false;
    if (!ok_) return {};
    const ByteSpan out = rest_.first(length);
    rest_ = rest_.subspan(length);
    return out;
  }
  ByteSpan sized() { return raw(number<uint32_t>()); }
  std::string text() { return std::string(as_text(sized())); }
  ByteSpan rest() { return raw(rest_.size()); }
  // Everything was there, and nothing is left.
  Status finish() const {
    if (!ok_ || !rest_.empty()) return Error{Errc::corrupt, "record in a pack is malformed"};
    return {};
  }

 private:
  ByteSpan rest_;
  bool ok_ = true;
};

void write_repo(RecordWriter& writer, const std::string& source, const RepoName& repo) {
  writer.text(source).number(static_cast<uint8_t>(repo.type)).text(repo.id);
}

RepoName read_repo(RecordReader& reader) {
  RepoName repo;
  repo.type = static_cast<RepoType>(reader.number<uint8_t>());
  repo.id = reader.text();
  return repo;
}

Status check_repo(const RepoName& repo) {
  if (repo.type > RepoType::space)
    return Error{Errc::corrupt, "record in a pack names an unknown type of repo"};
  return {};
}

}  // namespace

Buffer encode_snapshot_record(const std::string& source, const Snapshot& snapshot) {
  RecordWriter writer;
  write_repo(writer, source, snapshot.repo());
  writer.text(snapshot.commit()).number(snapshot.date());
  writer.raw(Snapshot::encode_entries(snapshot.entries()));
  return writer.take();
}

Result<SnapshotRecord> decode_snapshot_record(ByteSpan bytes) {
  RecordReader reader(bytes);
  SnapshotRecord record;
  record.source = reader.text();
  record.repo = read_repo(reader);
  record.commit = reader.text();
  record.date = reader.number<int64_t>();
  const ByteSpan entries = reader.rest();
  CAKE_TRY(reader.finish());
  CAKE_TRY(check_repo(record.repo));
  record.entries = CAKE_TRY(Snapshot::decode_entries(entries));
  return record;
}

Buffer encode_ref_record(const RefRecord& record) {
  RecordWriter writer;
  write_repo(writer, record.source, record.repo);
  writer.text(record.ref.revision).text(record.ref.commit).number(record.ref.resolved_at);
  return writer.take();
}

Result<RefRecord> decode_ref_record(ByteSpan bytes) {
  RecordReader reader(bytes);
  RefRecord record;
  record.source = reader.text();
  record.repo = read_repo(reader);
  record.ref.revision = reader.text();
  record.ref.commit = reader.text();
  record.ref.resolved_at = reader.number<int64_t>();
  CAKE_TRY(reader.finish());
  CAKE_TRY(check_repo(record.repo));
  return record;
}

Buffer encode_pin_record(const PinRecord& record) {
  RecordWriter writer;
  write_repo(writer, record.source, record.repo);
  writer.text(record.revision).number(static_cast<uint8_t>(record.is_pinned ? 1 : 0));
  return writer.take();
}

Result<PinRecord> decode_pin_record(ByteSpan bytes) {
  RecordReader reader(bytes);
  PinRecord record;
  record.source = reader.text();
  record.repo = read_repo(reader);
  record.revision = reader.text();
  record.is_pinned = reader.number<uint8_t>() != 0;
  CAKE_TRY(reader.finish());
  CAKE_TRY(check_repo(record.repo));
  return record;
}

Buffer encode_removal_record(const RemovalRecord& record) {
  RecordWriter writer;
  write_repo(writer, record.source, record.repo);
  writer.text(record.commit);
  return writer.take();
}

Result<RemovalRecord> decode_removal_record(ByteSpan bytes) {
  RecordReader reader(bytes);
  RemovalRecord record;
  record.source = reader.text();
  record.repo = read_repo(reader);
  record.commit = reader.text();
  CAKE_TRY(reader.finish());
  CAKE_TRY(check_repo(record.repo));
  return record;
}

Buffer encode_recipe_record(const RecipeRow& recipe, uint64_t file_bytes) {
  RecordWriter writer;
  writer.number(static_cast<uint8_t>(recipe.cutter)).number(file_bytes).raw(recipe.head);
  return writer.take();
}

Result<RecipeRecord> decode_recipe_record(ByteSpan bytes) {
  RecordReader reader(bytes);
  RecipeRecord record;
  record.recipe.cutter = static_cast<Cutter>(reader.number<uint8_t>());
  record.file_bytes = reader.number<uint64_t>();
  record.recipe.head = to_buffer(reader.rest());
  CAKE_TRY(reader.finish());
  if (record.recipe.cutter != Cutter::uniform && record.recipe.cutter != Cutter::safetensors)
    return Error{Errc::corrupt, "record in a pack names an unknown cutter"};
  return record;
}

std::vector<SegmentItem> segment_items(std::span<const PublishedExtent> extents) {
  std::vector<SegmentItem> items;
  items.reserve(extents.size());
  for (const PublishedExtent& extent : extents)
    items.push_back({extent.ordinal, extent.plain_bytes, extent.digest});
  return items;
}

Buffer encode_segment_record(const std::vector<SegmentItem>& items) {
  RecordWriter writer;
  for (const SegmentItem& item : items)
    writer.number(item.ordinal).number(item.plain_bytes).raw(item.digest.bytes);
  return writer.take();
}

Result<std::vector<SegmentItem>> decode_segment_record(ByteSpan bytes) {
  std::vector<SegmentItem> items;
  items.reserve(bytes.size() / kSegmentItemBytes);
  RecordReader reader(bytes);
  for (size_t i = 0; i < bytes.size() / kSegmentItemBytes; i++) {
    SegmentItem item;
    item.ordinal = reader.number<uint64_t>();
    item.plain_bytes = reader.number<uint32_t>();
    const ByteSpan digest = reader.raw(item.digest.bytes.size());
    std::memcpy(item.digest.bytes.data(), digest.data(), item.digest.bytes.size());
    items.push_back(item);
  }
  CAKE_TRY(reader.finish());
  return items;
}

}  // namespace cake
