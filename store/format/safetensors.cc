#include "store/format/safetensors.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace cake {

namespace {

using Json = nlohmann::json;

// Where the reference implementation's JSON parser stops.
constexpr size_t kMaxDepth = 128;
// Two caps of our own.  Each is far beyond any real file, and together they keep what we allocate
// within a small multiple of the header's length: "0," is 2 bytes of header and 8 of ours.
constexpr size_t kMaxDimensions = 1024;
constexpr size_t kMaxMetadata = 1 << 20;

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  unsigned bits;
};
constexpr std::array kDtypes = {
    DtypeRow{Dtype::boolean, "BOOL", 8},
    DtypeRow{Dtype::f4, "F4", 4},
    DtypeRow{Dtype::f6_e2m3, "F6_E2M3", 6},
    DtypeRow{Dtype::f6_e3m2, "F6_E3M2", 6},
    DtypeRow{Dtype::u8, "U8", 8},
    DtypeRow{Dtype::i8, "I8", 8},
    DtypeRow{Dtype::f8_e5m2, "F8_E5M2", 8},
    DtypeRow{Dtype::f8_e4m3, "F8_E4M3", 8},
    DtypeRow{Dtype::f8_e8m0, "F8_E8M0", 8},
    DtypeRow{Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    DtypeRow{Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    DtypeRow{Dtype::i16, "I16", 16},
    DtypeRow{Dtype::u16, "U16", 16},
    DtypeRow{Dtype::f16, "F16", 16},
    DtypeRow{Dtype::bf16, "BF16", 16},
    DtypeRow{Dtype::i32, "I32", 32},
    DtypeRow{Dtype::u32, "U32", 32},
    DtypeRow{Dtype::f32, "F32", 32},
    DtypeRow{Dtype::c64, "C64", 64},
    DtypeRow{Dtype::f64, "F64", 64},
    DtypeRow{Dtype::i64, "I64", 64},
    DtypeRow{Dtype::u64, "U64", 64},
};

Error corrupt_header(std::string reason) {
  return Error{Errc::corrupt, std::move(reason)};
}

// A name from a hostile header, fit for one line of a log.
std::string in_quotes(std::string_view name) {
  constexpr size_t kShown = 80;
  std::string out = "\"";
  for (const char letter : name.substr(0, kShown))
    out += static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f ? '?' : letter;
  return out + (name.size() > kShown ? "...\"" : "\"");
}

// Takes the parser's events and builds tensors; ranges count from the start of the data, and how
// they fit together is not checked here.  Every handler answers false to stop.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return scalar("a negative number"); }
  // Also what does not fit 64 bits.
  bool number_float(number_float_t, const string_t&) override { return scalar("not an integer"); }
  bool binary(binary_t&) override { return scalar("binary"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    return refuse(cat("bad JSON at byte ", position));
  }

  std::string reason;
  std::vector<Tensor> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;

 private:
  enum class Place { document, root, entry, shape, offsets, metadata, skipped };
  // Members of an entry, as bits of seen_.
  enum Member : unsigned { other = 0, dtype = 1, shape = 2, data_offsets = 4 };

  bool refuse(std::string why) {
    if (reason.empty()) reason = std::move(why);
    return false;
  }
  bool refuse_here(std::string_view what) {
    if (place_ == Place::document) return refuse(cat("header is ", what));
    if (place_ == Place::metadata || (place_ == Place::root && in_metadata_))
      return refuse(cat("__metadata__ has ", what));
    return refuse(cat("tensor ", in_quotes(tensors.empty() ? "" : tensors.back().name), " has ",
                      what, " where it may not"));
  }
  // A value with no meaning anywhere but in members that we ignore.
  bool scalar(std::string_view what) { return is_ignored() || refuse_here(what); }
  bool is_ignored() const {
    return place_ == Place::skipped || (place_ == Place::entry && member_ == other);
  }
  bool enter_skipped() {
    place_ = Place::skipped;
    // The root object and the entry are two levels already.
    return ++skipped_depth_ + 2 <= kMaxDepth || refuse("JSON is nested too deeply");
  }
  void leave_skipped() {
    if (--skipped_depth_ == 0) place_ = Place::entry;
  }
  bool start_member(const string_t& name);
  bool finish_entry();

  Place place_ = Place::document;
  Member member_ = other;
  unsigned seen_ = 0;  // Members of the entry so far
  bool in_metadata_ = false, has_metadata_ = false;
  size_t skipped_depth_ = 0;
  std::vector<uint64_t> numbers_;  // of the array being read
  uint64_t begin_ = 0, end_ = 0;
};

bool HeaderReader::start_object(size_t) {
  if (is_ignored()) return enter_skipped();
  if (place_ == Place::document) {
    place_ = Place::root;
    return true;
  }
  if (place_ != Place::root) return refuse_here("an object");
  place_ = in_metadata_ ? Place::metadata : Place::entry;
  seen_ = 0;
  member_ = other;
  return true;
}

bool HeaderReader::key(string_t& name) {
  switch (place_) {
    case Place::root:
      in_metadata_ = name == "__metadata__";
      if (!in_metadata_) {
        tensors.emplace_back().name = std::move(name);
        return true;
      }
      if (has_metadata_) return refuse("__metadata__ stands twice");
      has_metadata_ = true;
      return true;
    case Place::metadata:
      if (metadata.size() == kMaxMetadata) return refuse("__metadata__ has too many members");
      metadata.emplace_back(std::move(name), std::string());
      return true;
    case Place::entry:
      return start_member(name);
    default:
      return true;  // inside what we ignore
  }
}

bool HeaderReader::start_member(const string_t& name) {
  member_ = name == "dtype"          ? dtype
            : name == "shape"        ? shape
            : name == "data_offsets" ? data_offsets
                                     : other;
  if (seen_ & member_) return refuse_here(cat(name, " twice"));
  seen_ |= member_;
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::skipped) {
    leave_skipped();
  } else if (place_ == Place::entry) {
    place_ = Place::root;
    return finish_entry();
  } else {
    place_ = place_ == Place::metadata ? Place::root : Place::document;
  }
  return true;
}

bool HeaderReader::finish_entry() {
  Tensor& tensor = tensors.back();
  const std::string_view lack = !(seen_ & dtype)          ? " has no dtype"
                                : !(seen_ & shape)        ? " has no shape"
                                : !(seen_ & data_offsets) ? " has no data_offsets"
                                : end_ < begin_           ? " ends before it begins"
                                                          : "";
  if (!lack.empty()) return refuse(cat("tensor ", in_quotes(tensor.name), lack));
  tensor.range = {begin_, end_ - begin_};
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (is_ignored()) return enter_skipped();
  if (place_ != Place::entry || member_ == dtype) return refuse_here("an array");
  place_ = member_ == shape ? Place::shape : Place::offsets;
  numbers_.clear();
  return true;
}

bool HeaderReader::end_array() {
  if (place_ == Place::skipped) {
    leave_skipped();
    return true;
  }
  if (place_ == Place::shape) {
    tensors.back().shape.assign(numbers_.begin(), numbers_.end());
  } else {
    if (numbers_.size() != 2) return refuse_here("data_offsets that are not two");
    begin_ = numbers_[0];
    end_ = numbers_[1];
  }
  place_ = Place::entry;
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (place_ != Place::shape && place_ != Place::offsets) return scalar("a number");
  if (numbers_.size() == kMaxDimensions) return refuse_here("too many numbers");
  numbers_.push_back(value);
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (place_ == Place::metadata) {
    metadata.back().second = std::move(value);
    return true;
  }
  if (place_ != Place::entry || member_ != dtype) return scalar("a string");
  Tensor& tensor = tensors.back();
  tensor.dtype = dtype_from_name(value);
  tensor.dtype_name = std::move(value);
  return true;
}

// Checks 7 to 9 of the reference reader: the size follows from shape and type, multiplied from left
// to right so that [0, 2^32, 2^32] is empty and [2^32, 2^32, 0] overflows, as there.
Status check_size(const Tensor& tensor) {
  if (tensor.dtype == Dtype::bytes) return {};  // unknown: its offsets are all we have
  std::optional<uint64_t> product = 1;
  for (const uint64_t dimension : tensor.shape)
    if (product) product = checked_mul(*product, dimension);
  if (product) product = checked_mul(*product, dtype_bits(tensor.dtype));
  if (!product) return corrupt_header("size of tensor " + in_quotes(tensor.name) + " overflows");
  if (*product % 8 != 0)
    return corrupt_header("tensor " + in_quotes(tensor.name) + " ends inside a byte");
  if (*product / 8 != tensor.range.length)
    return corrupt_header(cat("tensor ", in_quotes(tensor.name), " has ", tensor.range.length,
                              " bytes; its shape takes ", *product / 8));
  return {};
}

// Sorts, checks that the tensors follow each other without gap from 0 to `data_bytes`, and moves
// their ranges behind the header.
Status place_tensors(std::vector<Tensor>& tensors, uint64_t header_bytes, uint64_t data_bytes) {
  // (begin, end): an empty tensor stands before the one that starts where it does.  Stable, so
  // that equal empty tensors keep the header's order.
  std::stable_sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return std::pair(a.range.offset, a.range.length) < std::pair(b.range.offset, b.range.length);
  });
  uint64_t expected = 0;
  for (Tensor& tensor : tensors) {
    if (tensor.range.offset != expected)
      return corrupt_header(cat("tensor ", in_quotes(tensor.name), " begins at ",
                                tensor.range.offset, " of the data, not at ", expected));
    CAKE_TRY(check_size(tensor));
    expected = tensor.range.end();
    if (expected > data_bytes)
      return corrupt_header("tensor " + in_quotes(tensor.name) + " ends beyond the file");
    tensor.range.offset += header_bytes;
  }
  if (expected != data_bytes)
    return corrupt_header(
        cat("tensors end ", data_bytes - expected, " bytes before the file does"));
  return {};
}

// The name that stands twice.  Sorted rather than hashed: a hostile header can choose its hashes.
template <typename Items, typename Name>
std::optional<std::string> find_duplicate(const Items& items, Name name_of) {
  std::vector<std::string_view> names;
  names.reserve(items.size());
  for (const auto& item : items) names.push_back(name_of(item));
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return std::nullopt;
  return in_quotes(*twice);
}

// The JSON without the spaces that pad it.  The parser keeps what it skips until the next token, so
// 100 MB of padding would be copied.
std::string_view trim_padding(std::string_view json) {
  const size_t last = json.find_last_not_of(' ');
  return json.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

}  // namespace

Result<uint64_t> safetensors_header_bytes(ByteSpan first_8, uint64_t file_bytes) {
  if (file_bytes < kSafetensorsLengthBytes || first_8.size() < kSafetensorsLengthBytes)
    return corrupt_header("shorter than the 8 bytes of a header length");
  const uint64_t json_bytes = load_le64(first_8.data());
  if (json_bytes > kMaxSafetensorsHeaderBytes)
    return corrupt_header(
        cat("header length ", json_bytes, " is beyond ", kMaxSafetensorsHeaderBytes));
  if (json_bytes > file_bytes - kSafetensorsLengthBytes)
    return corrupt_header(cat("header length ", json_bytes, " is beyond the file"));
  return kSafetensorsLengthBytes + json_bytes;
}

Result<Layout> parse_safetensors(ByteSpan header, uint64_t file_bytes) {
  Layout layout;
  layout.header_bytes = CAKE_TRY(safetensors_header_bytes(header, file_bytes));
  if (header.size() < layout.header_bytes)
    return corrupt_header(
        cat("only ", header.size(), " of ", layout.header_bytes, " header bytes given"));
  const std::string_view json = trim_padding(as_text(
      header.subspan(kSafetensorsLengthBytes, layout.header_bytes - kSafetensorsLengthBytes)));
  if (!json.starts_with('{')) return corrupt_header("header does not start with {");
  // To the parser a NUL is the end of its input, and what follows would go unread.
  if (json.find('\0') != std::string_view::npos) return corrupt_header("header has a NUL byte");

  HeaderReader reader;
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) return corrupt_header(reader.reason);
  const auto tensor_name = [](const Tensor& tensor) -> std::string_view { return tensor.name; };
  if (const auto name = find_duplicate(reader.tensors, tensor_name))
    return corrupt_header("tensor " + *name + " stands twice");
  const auto member_name = [](const auto& member) -> std::string_view { return member.first; };
  if (const auto name = find_duplicate(reader.metadata, member_name))
    return corrupt_header("__metadata__ has " + *name + " twice");

  layout.tensors = std::move(reader.tensors);
  layout.metadata = std::move(reader.metadata);
  if (const Status placed =
          place_tensors(layout.tensors, layout.header_bytes, file_bytes - layout.header_bytes);
      !placed)
    return placed.error();
  return layout;
}

unsigned dtype_bits(Dtype dtype) {
  for (const DtypeRow& row : kDtypes)
    if (row.dtype == dtype) return row.bits;
  return 0;
}

Dtype dtype_from_name(std::string_view name) {
  for (const DtypeRow& row : kDtypes)
    if (row.name == name) return row.dtype;
  return Dtype::bytes;
}

std::string_view dtype_name(Dtype dtype) {
  for (const DtypeRow& row : kDtypes)
    if (row.dtype == dtype) return row.name;
  return "bytes";
}

}  // namespace cake
