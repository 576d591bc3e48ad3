#include "store/format/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <ostream>

#include "tests/support/sanitized.h"

namespace cake {
namespace {

constexpr uint64_t kCap = kMaxSafetensorsHeaderBytes;

Buffer with_length(uint64_t length, std::string_view json) {
  Buffer head(8 + json.size());
  store_le(head.data(), length);
  std::copy(json.begin(), json.end(), reinterpret_cast<char*>(head.data()) + 8);
  return head;
}

Result<Layout> parse(std::string_view json, uint64_t data_bytes) {
  return parse_safetensors(with_length(json.size(), json), 8 + json.size() + data_bytes);
}

// {"t":{"dtype":...,"shape":...,"data_offsets":...}}
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return cat(R"({"t":{"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets,
             "}}");
}

// U8 tensors a, b, ... of the given offsets.
std::string u8_tensors(const std::vector<ByteRange>& ranges) {
  std::string json = "{";
  char name = 'a';
  for (const ByteRange& range : ranges) {
    if (name != 'a') json += ',';
    json += cat('"', name++, R"(":{"dtype":"U8","shape":[)", range.length, R"(],"data_offsets":[)",
                range.offset, ',', range.end(), "]}");
  }
  return json + "}";
}

struct Malformed {
  const char* name;
  std::string json;
  uint64_t data_bytes;
  const char* reason;  // part of the message: refused for what it is, not by accident
};
void PrintTo(const Malformed& row, std::ostream* out) {
  *out << row.name;
}

class MalformedHeader : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedHeader, IsRefused) {
  const Result<Layout> layout = parse(GetParam().json, GetParam().data_bytes);
  ASSERT_FALSE(layout) << GetParam().json.substr(0, 200);
  EXPECT_EQ(layout.error().code, Errc::corrupt);
  EXPECT_NE(layout.error().message.find(GetParam().reason), std::string::npos)
      << layout.error().message;
  EXPECT_LT(layout.error().message.size(), 300u);  // one log line, however long the name
}

std::string nested(size_t depth) {
  return R"({"t":{"x":)" + std::string(depth, '[') + std::string(depth, ']') +
         R"(,"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
}

const std::string kU8 = R"("dtype":"U8","shape":[1],"data_offsets":[0,1])";

INSTANTIATE_TEST_SUITE_P(
    Table, MalformedHeader,
    testing::Values(
        Malformed{"EmptyJson", "", 0, "start with {"},
        Malformed{"OnlySpaces", std::string(64, ' '), 0, "start with {"},
        Malformed{"OnlyBrace", "{", 0, "bad JSON"}, Malformed{"Array", "[]", 0, "start with {"},
        Malformed{"String", "\"x\"", 0, "start with {"},
        Malformed{"Null", "null", 0, "start with {"}, Malformed{"Number", "7", 0, "start with {"},
        Malformed{"LeadingSpace", " {}", 0, "start with {"},
        Malformed{"LeadingByteOrderMark", "\xef\xbb\xbf{}", 0, "start with {"},
        Malformed{"SecondObject", "{}{}", 0, "bad JSON"},
        Malformed{"Comment", "{/**/}", 0, "bad JSON"},
        Malformed{"NotUtf8", "{\"\xff\":{" + kU8 + "}}", 1, "bad JSON"},
        Malformed{"OverlongUtf8", "{\"\xc0\x80\":{" + kU8 + "}}", 1, "bad JSON"},
        Malformed{"SurrogateInUtf8", "{\"\xed\xa0\x80\":{" + kU8 + "}}", 1, "bad JSON"},
        Malformed{"LoneSurrogateEscape", "{\"\\ud800\":{" + kU8 + "}}", 1, "bad JSON"},
        Malformed{"RawNulInName", std::string("{\"\0\":{", 6) + kU8 + "}}", 1, "NUL"},
        // The JSON library takes a NUL as the end of its input.
        Malformed{"NulAndMoreAfterObject", std::string("{}\0junk", 7), 0, "NUL"},
        Malformed{"TrailingNul", std::string("{}\0", 3), 0, "NUL"},
        Malformed{"NestedTooDeeply", nested(127), 1, "too deeply"},
        Malformed{"NestedHundredThousand", nested(100'000), 1, "too deeply"},
        Malformed{"DuplicateTensor",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  2, "stands twice"},
        Malformed{"DuplicateTensorByEscape",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  2, "stands twice"},
        Malformed{"DuplicateMetadata", R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
        Malformed{"DuplicateMetadataMember", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "twice"},
        Malformed{"DuplicateDtype", "{\"t\":{\"dtype\":\"U8\"," + kU8 + "}}", 1, "dtype twice"},
        Malformed{"DuplicateShape", "{\"t\":{\"shape\":[1]," + kU8 + "}}", 1, "shape twice"},
        Malformed{"DuplicateOffsets", "{\"t\":{\"data_offsets\":[0,1]," + kU8 + "}}", 1,
                  "data_offsets twice"},
        Malformed{"MetadataNumber", R"({"__metadata__":{"a":1}})", 0, "__metadata__ has a number"},
        Malformed{"MetadataNull", R"({"__metadata__":{"a":null}})", 0, "__metadata__ has null"},
        Malformed{"MetadataObject", R"({"__metadata__":{"a":{}}})", 0, "__metadata__ has an obj"},
        Malformed{"MetadataArray", R"({"__metadata__":{"a":[]}})", 0, "__metadata__ has an arr"},
        Malformed{"MetadataIsNull", R"({"__metadata__":null})", 0, "__metadata__ has null"},
        Malformed{"MetadataIsString", R"({"__metadata__":"x"})", 0, "__metadata__ has a string"},
        Malformed{"EntryIsArray", R"({"t":["U8",[1],[0,1]]})", 1, "an array"},
        Malformed{"EntryIsNull", R"({"t":null})", 0, "has null"},
        Malformed{"EntryIsEmpty", R"({"t":{}})", 0, "no dtype"},
        Malformed{"NoDtype", R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1, "no dtype"},
        Malformed{"NoShape", R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", 1, "no shape"},
        Malformed{"NoOffsets", R"({"t":{"dtype":"U8","shape":[1]}})", 1, "no data_offsets"},
        // Offsets are not taken over from the entry before.
        Malformed{"NoOffsetsInSecond",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("b":{"dtype":"U8","shape":[1]}})",
                  1, "no data_offsets"},
        Malformed{"OneOffset", one("U8", "[1]", "[1]"), 1, "not two"},
        Malformed{"NoOffsetNumbers", one("U8", "[1]", "[]"), 1, "not two"},
        Malformed{"ThreeOffsets", one("U8", "[1]", "[0,1,1]"), 1, "not two"},
        Malformed{"OffsetsAreNumber", one("U8", "[1]", "1"), 1, "a number"},
        Malformed{"ShapeIsNumber", one("U8", "1", "[0,1]"), 1, "a number"},
        Malformed{"ShapeIsNested", one("U8", "[[1]]", "[0,1]"), 1, "an array"},
        Malformed{"ShapeOfObject", one("U8", "[{}]", "[0,1]"), 1, "an object"},
        Malformed{"ShapeOfString", one("U8", "[\"1\"]", "[0,1]"), 1, "a string"},
        Malformed{"ShapeOfNull", one("U8", "[null]", "[0,1]"), 1, "null"},
        Malformed{"ShapeOfBoolean", one("U8", "[true]", "[0,1]"), 1, "a boolean"},
        Malformed{"DtypeIsNumber", R"({"t":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1,
                  "a number"},
        Malformed{"DtypeIsObject", R"({"t":{"dtype":{},"shape":[1],"data_offsets":[0,1]}})", 1,
                  "an object"},
        Malformed{"NegativeShape", one("U8", "[-1]", "[0,1]"), 1, "negative"},
        Malformed{"MinusZero", one("U8", "[-0]", "[0,0]"), 0, "negative"},
        Malformed{"NegativeOffset", one("U8", "[1]", "[-1,0]"), 1, "negative"},
        Malformed{"FractionalShape", one("U8", "[1.0]", "[0,1]"), 1, "not an integer"},
        Malformed{"ExponentShape", one("U8", "[1e0]", "[0,1]"), 1, "not an integer"},
        Malformed{"HugeExponent", one("U8", "[1e999]", "[0,1]"), 1, "bad JSON"},
        Malformed{"LeadingZero", one("U8", "[01]", "[0,1]"), 1, "bad JSON"},
        Malformed{"ShapeBeyond64Bits", one("U8", "[18446744073709551616]", "[0,0]"), 0,
                  "not an integer"},
        Malformed{"OffsetBeyond64Bits", one("U8", "[1]", "[0,18446744073709551616]"), 1,
                  "not an integer"},
        Malformed{"TooManyDimensions",
                  one(
                      "U8",
                      "[1" +
                          [] {
                            std::string ones;
                            for (int i = 0; i < 1024; i++) ones += ",1";
                            return ones;
                          }() +
                          "]",
                      "[0,1]"),
                  1, "too many numbers"},
        Malformed{"ProductOverflow", one("U8", "[4294967296,4294967296,2]", "[0,0]"), 0,
                  "overflows"},
        Malformed{"ProductOverflowBeforeZero", one("U8", "[4294967296,4294967296,0]", "[0,0]"), 0,
                  "overflows"},
        Malformed{"BitsOverflow", one("U8", "[2305843009213693952]", "[0,0]"), 0, "overflows"},
        Malformed{"EndBeforeBegin", one("U8", "[1]", "[1,0]"), 1, "ends before it begins"},
        Malformed{"HoleAtStart", u8_tensors({{4, 4}}), 8, "begins at 4"},
        Malformed{"HoleInMiddle", u8_tensors({{0, 4}, {5, 3}}), 8, "begins at 5"},
        Malformed{"OverlapByOne", u8_tensors({{0, 4}, {3, 5}}), 8, "begins at 3"},
        Malformed{"SameExtentTwice", u8_tensors({{0, 8}, {0, 8}}), 8, "begins at 0"},
        Malformed{"EmptyInsideAnother", u8_tensors({{0, 8}, {4, 0}}), 8, "begins at 4"},
        Malformed{"SizeTooSmall", one("F32", "[2]", "[0,4]"), 4, "its shape takes 8"},
        Malformed{"SizeTooLarge", one("F32", "[1]", "[0,8]"), 8, "its shape takes 4"},
        Malformed{"ScalarWithoutBytes", one("F32", "[]", "[0,0]"), 0, "its shape takes 4"},
        Malformed{"OddF4", one("F4", "[3]", "[0,1]"), 1, "inside a byte"},
        Malformed{"OddF6", one("F6_E2M3", "[3]", "[0,2]"), 2, "inside a byte"},
        Malformed{"Truncated", one("U8", "[16]", "[0,16]"), 15, "beyond the file"},
        Malformed{"TrailingByte", one("U8", "[16]", "[0,16]"), 17, "1 bytes before"},
        Malformed{"BytesWithoutTensors", "{}", 1, "1 bytes before"},
        Malformed{"OffsetsNearTwoTo64", one("F9", "[1]", "[0,18446744073709551615]"), 1,
                  "beyond the file"},
        Malformed{"LongName", "{\"" + std::string(1'000'000, 'n') + "\":{\"shape\":[]}}", 0,
                  "no dtype"}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(Safetensors, ReadsTheReferenceFile) {
  const std::string json = R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})";
  const Result<Layout> layout = parse(json, 16);
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(json.size(), 60u);
  EXPECT_EQ(layout->header_bytes, 68u);
  ASSERT_EQ(layout->tensors.size(), 1u);
  const Tensor& tensor = layout->tensors[0];
  EXPECT_EQ(tensor.name, "test");
  EXPECT_EQ(tensor.dtype, Dtype::i32);
  EXPECT_EQ(tensor.dtype_name, "I32");
  EXPECT_EQ(tensor.shape, (std::vector<uint64_t>{2, 2}));
  EXPECT_EQ(tensor.range, (ByteRange{68, 16}));
}

TEST(Safetensors, RefusesAFileWithoutRoomForALength) {
  for (uint64_t bytes = 0; bytes < 8; bytes++) {
    const Buffer file(bytes, std::byte{1});
    EXPECT_FALSE(safetensors_header_bytes(file, bytes)) << bytes;
    EXPECT_FALSE(parse_safetensors(file, bytes)) << bytes;
  }
}

TEST(Safetensors, RefusesAHeaderLengthBeyondFileOrCap) {
  struct {
    uint64_t length, file_bytes;
  } const rows[] = {{uint64_t{1} << 63, 100},
                    {UINT64_MAX, 100},
                    {UINT64_MAX, UINT64_MAX},
                    {100 - 7, 100},
                    {kCap + 1, uint64_t{1} << 40}};
  for (const auto& row : rows) {
    EXPECT_FALSE(safetensors_header_bytes(with_length(row.length, ""), row.file_bytes));
    EXPECT_FALSE(parse_safetensors(with_length(row.length, "{}"), row.file_bytes));
  }
  EXPECT_EQ(*safetensors_header_bytes(with_length(100 - 8, ""), 100), 100u);
  EXPECT_EQ(*safetensors_header_bytes(with_length(kCap, ""), uint64_t{1} << 40), kCap + 8);
}

TEST(Safetensors, RefusesAHeadShorterThanItsHeader) {
  const std::string json = one("U8", "[1]", "[0,1]");
  const Buffer head = with_length(json.size(), json);
  for (size_t given = 0; given < head.size(); given++)
    EXPECT_FALSE(parse_safetensors(ByteSpan(head).first(given), head.size() + 1)) << given;
  EXPECT_TRUE(parse_safetensors(head, head.size() + 1));
}

TEST(Safetensors, IgnoresBytesBehindTheHeader) {
  Buffer file = with_length(2, "{}");
  file.resize(file.size() + 3, std::byte{'{'});
  EXPECT_FALSE(parse_safetensors(file, file.size()));  // bytes that no tensor holds
  EXPECT_TRUE(parse_safetensors(file, 10));
}

TEST(Safetensors, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(parse("{}", 0));
  EXPECT_TRUE(parse("{}      ", 0));
  EXPECT_TRUE(parse("{} \n\t", 0));
  const Result<Layout> layout = parse(R"({"__metadata__":{"format":"pt","a":""}})", 0);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->metadata, (decltype(layout->metadata){{"format", "pt"}, {"a", ""}}));
}

TEST(Safetensors, SortsByOffsetWithEmptyTensorsFirst) {
  const Result<Layout> layout =
      parse(u8_tensors({{4, 4}, {4, 0}, {0, 4}, {8, 0}, {4, 0}, {0, 0}}), 8);
  ASSERT_TRUE(layout) << layout.error().message;
  std::string order;
  for (const Tensor& tensor : layout->tensors) order += tensor.name;
  EXPECT_EQ(order, "fcbead");
}

TEST(Safetensors, MultipliesShapesFromLeftToRight) {
  EXPECT_TRUE(parse(one("U8", "[0,4294967296,4294967296]", "[0,0]"), 0));
  EXPECT_TRUE(parse(one("F32", "[]", "[0,4]"), 4));  // a scalar
  EXPECT_TRUE(parse(one("F4", "[2,3]", "[0,3]"), 3));
}

TEST(Safetensors, TakesAnUnknownDtypeAtItsOffsets) {
  const Result<Layout> layout = parse(one("F3_NEW", "[7,7]", "[0,5]"), 5);
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->tensors[0].dtype, Dtype::bytes);
  EXPECT_EQ(layout->tensors[0].dtype_name, "F3_NEW");
  EXPECT_EQ(layout->tensors[0].range.length, 5u);
  EXPECT_EQ(parse(one("f32", "[1]", "[0,4]"), 4)->tensors[0].dtype, Dtype::bytes);
}

TEST(Safetensors, IgnoresUnknownMembersOfATensor) {
  const std::string json = R"({"t":{"x":{"a":[1,-2,3.5,null,true,"s",{}],"dtype":0},"dtype":"U8",)"
                           R"("y":-1,"shape":[1],"z":null,"data_offsets":[0,1],"w":[]}})";
  const Result<Layout> layout = parse(json, 1);
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->tensors[0].dtype, Dtype::u8);
  EXPECT_TRUE(parse(nested(126), 1));
}

TEST(Safetensors, AllowsAnyName) {
  for (const std::string name : {"", "a/b", "../../etc/passwd", "\\u0000", "\\ud83c\\udf70"}) {
    const Result<Layout> layout = parse("{\"" + name + "\":{" + kU8 + "}}", 1);
    EXPECT_TRUE(layout) << name;
  }
  const std::string megabyte(1'000'000, 'n');
  const Result<Layout> layout = parse("{\"" + megabyte + "\":{" + kU8 + "}}", 1);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->tensors[0].name, megabyte);
  EXPECT_EQ(parse("{\"a\\u0000b\":{" + kU8 + "}}", 1)->tensors[0].name, std::string("a\0b", 3));
}

TEST(Safetensors, KnowsEveryDtype) {
  const std::vector<std::pair<std::string, unsigned>> all = {
      {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
      {"I64", 64},        {"U64", 64}};
  for (size_t i = 0; i < all.size(); i++) {
    const Dtype dtype = dtype_from_name(all[i].first);
    EXPECT_EQ(dtype, static_cast<Dtype>(i + 1)) << all[i].first;
    EXPECT_EQ(dtype_name(dtype), all[i].first);
    EXPECT_EQ(dtype_bits(dtype), all[i].second) << all[i].first;
  }
  EXPECT_EQ(dtype_bits(Dtype::bytes), 0u);
  EXPECT_EQ(dtype_from_name(dtype_name(Dtype::bytes)), Dtype::bytes);
}

// Bounds are generous for sanitizers and busy machines; what is quadratic takes hours.
class Clock {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

TEST(Safetensors, TakesAMillionTensors) {
  constexpr uint64_t kCount = kIsSanitized ? 100'000 : 1'000'000;
  std::string json = "{";
  for (uint64_t i = kCount; i-- > 0;)
    json += cat("\"", i, R"(":{"dtype":"U8","shape":[1],"data_offsets":[)", i, ',', i + 1, "]},");
  json.back() = '}';
  const Result<Layout> layout = parse(json, kCount);
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->tensors.size(), kCount);
  EXPECT_EQ(layout->tensors[777].name, "777");
}

TEST(Safetensors, RefusesTheLargestHeaderOfSpacesSoon) {
  Buffer head = with_length(kCap, "");
  head.resize(8 + kCap, std::byte{' '});
  const Clock clock;
  EXPECT_FALSE(parse_safetensors(head, head.size()));
  head[8] = std::byte{'{'};
  EXPECT_FALSE(parse_safetensors(head, head.size()));
  head[9] = std::byte{'}'};
  EXPECT_TRUE(parse_safetensors(head, head.size()));
  EXPECT_LT(clock.seconds(), 60);
}

}  // namespace
}  // namespace cake
