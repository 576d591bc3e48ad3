// The stored form of a snapshot's entries.
//
//   version   1 byte, 1
//   count     varint
//   entries   count times:
//     shared  varint: bytes that the path has in common with the one before
//     rest    varint length, then the path's other bytes
//     bytes   varint: the file's length
//     forms   1 byte: 2 bits an id (git oid lowest, sha256, xet), each a Form; 2 bits zero
//     ids     those that are there, in that order
//
// Varints are LEB128, at most 10 bytes.  Nothing is compressed: of a real entry nearly all is hash.
#include <algorithm>
#include <array>

#include "store/snapshot.h"

namespace cake {

namespace {

constexpr auto kVersion = std::byte{1};
constexpr size_t kMinEntryBytes = 4;
// Shared prefixes let a few bytes stand for a long path.  Paths together may take so much more than
// what was read; the encoder writes one in full where sharing would break that.
constexpr uint64_t kMaxExpansion = 32;
constexpr uint64_t kFreePathBytes = kMiB;

// How an id is written.
enum class Form : unsigned {
  absent = 0,
  binary = 1,  // lower-case hex of the usual length, as bytes
  text = 2,    // anything else: varint length, then the text
};

struct IdField {
  std::string FileIds::*member;
  size_t binary_bytes;
};
constexpr std::array kIdFields = {IdField{&FileIds::git_oid, 20}, IdField{&FileIds::sha256, 32},
                                  IdField{&FileIds::xet, 32}};

bool is_within_expansion(uint64_t path_bytes, uint64_t coded_bytes) {
  return path_bytes <= kFreePathBytes + kMaxExpansion * coded_bytes;
}

class Writer {
 public:
  void byte(std::byte value) { out_.push_back(value); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) byte(static_cast<std::byte>(value | 0x80));
    byte(static_cast<std::byte>(value));
  }
  void bytes(ByteSpan value) { out_.insert(out_.end(), value.begin(), value.end()); }
  void text(std::string_view value) {
    varint(value.size());
    bytes(as_bytes(value));
  }
  size_t size() const { return out_.size(); }
  Buffer take() { return std::move(out_); }

 private:
  Buffer out_;
};

Error corrupt_snapshot(std::string_view reason) {
  return Error{Errc::corrupt, cat("stored snapshot: ", reason)};
}

class Reader {
 public:
  explicit Reader(ByteSpan bytes) : bytes_(bytes) {}
  size_t left() const { return bytes_.size() - at_; }
  size_t position() const { return at_; }

  Result<ByteSpan> bytes(uint64_t length) {
    if (length > left()) return corrupt_snapshot("truncated");
    at_ += length;
    return bytes_.subspan(at_ - length, length);
  }
  Result<std::byte> byte() { return CAKE_TRY(bytes(1))[0]; }
  Result<uint64_t> varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto next = static_cast<uint64_t>(CAKE_TRY(byte()));
      const uint64_t bits = next & 0x7f;
      if (shift == 63 && bits > 1) break;
      value |= bits << shift;
      if (next < 0x80) return value;
    }
    return corrupt_snapshot("number beyond 64 bits");
  }
  Result<ByteSpan> counted_bytes() {
    const uint64_t length = CAKE_TRY(varint());
    return bytes(length);
  }

 private:
  ByteSpan bytes_;
  size_t at_ = 0;
};

Form form_of(const std::string& id, size_t binary_bytes) {
  if (id.empty()) return Form::absent;
  const bool is_lower = id.find_first_of("ABCDEF") == std::string::npos;
  return is_lower && is_hex(id, 2 * binary_bytes) ? Form::binary : Form::text;
}

void write_ids(Writer& writer, const FileIds& ids) {
  unsigned forms = 0;
  for (size_t i = 0; i < kIdFields.size(); i++)
    forms |= static_cast<unsigned>(form_of(ids.*kIdFields[i].member, kIdFields[i].binary_bytes))
             << (2 * i);
  writer.byte(static_cast<std::byte>(forms));
  for (const IdField& field : kIdFields) {
    const std::string& id = ids.*field.member;
    const Form form = form_of(id, field.binary_bytes);
    if (form == Form::text) writer.text(id);
    if (form != Form::binary) continue;
    std::array<std::byte, 32> binary{};
    const auto used = MutableByteSpan(binary).first(field.binary_bytes);
    CAKE_CHECK(parse_hex(id, used));
    writer.bytes(used);
  }
}

Result<FileIds> read_ids(Reader& reader) {
  FileIds ids;
  const auto forms = static_cast<unsigned>(CAKE_TRY(reader.byte()));
  if (forms >> (2 * kIdFields.size())) return corrupt_snapshot("unknown id");
  for (size_t i = 0; i < kIdFields.size(); i++) {
    std::string& id = ids.*kIdFields[i].member;
    switch (static_cast<Form>((forms >> (2 * i)) & 3)) {
      case Form::absent:
        break;
      case Form::binary:
        id = hex(CAKE_TRY(reader.bytes(kIdFields[i].binary_bytes)));
        break;
      case Form::text:
        id = as_text(CAKE_TRY(reader.counted_bytes()));
        break;
      default:
        return corrupt_snapshot("unknown form of an id");
    }
  }
  return ids;
}

}  // namespace

Buffer Snapshot::encode_entries(const std::vector<TreeEntry>& entries) {
  Writer writer;
  writer.byte(kVersion);
  writer.varint(entries.size());
  std::string_view previous;
  uint64_t path_bytes = 0;
  for (const TreeEntry& entry : entries) {
    const std::string_view path = entry.path;
    path_bytes += path.size();
    const size_t shared =
        is_within_expansion(path_bytes, writer.size()) ? shared_prefix(previous, path) : 0;
    writer.varint(shared);
    writer.text(path.substr(shared));
    writer.varint(entry.bytes);
    write_ids(writer, entry.ids);
    previous = path;
  }
  return writer.take();
}

Result<std::vector<TreeEntry>> Snapshot::decode_entries(ByteSpan bytes) {
  Reader reader(bytes);
  if (CAKE_TRY(reader.byte()) != kVersion) return corrupt_snapshot("unknown version");
  const uint64_t count = CAKE_TRY(reader.varint());
  if (count > reader.left() / kMinEntryBytes) return corrupt_snapshot("more entries than bytes");
  std::vector<TreeEntry> entries;
  entries.reserve(count);
  std::string_view previous;
  uint64_t path_bytes = 0;
  for (uint64_t i = 0; i < count; i++) {
    const size_t start = reader.position();
    const uint64_t shared = CAKE_TRY(reader.varint());
    if (shared > previous.size()) return corrupt_snapshot("shared prefix is too long");
    const ByteSpan rest = CAKE_TRY(reader.counted_bytes());
    path_bytes += shared + rest.size();
    if (shared > 0 && !is_within_expansion(path_bytes, start))
      return corrupt_snapshot("paths take too much");
    TreeEntry& entry = entries.emplace_back();
    entry.path.reserve(shared + rest.size());
    entry.path.append(previous.substr(0, shared)).append(as_text(rest));
    entry.bytes = CAKE_TRY(reader.varint());
    entry.ids = CAKE_TRY(read_ids(reader));
    previous = entry.path;
  }
  if (reader.left() != 0) return corrupt_snapshot("bytes after the last entry");
  return entries;
}

}  // namespace cake
