#include "store/codec/float_planes.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "store/codec/sample.h"
#include "store/codec/transform.h"
#include "store/codec/zstd.h"

namespace cake {

namespace {

constexpr uint8_t kVersion = 1;
// version, transform, bias, number of planes; then coding and length of each
constexpr size_t kHeadBytes = 4;
constexpr size_t kPlaneEntryBytes = 4;
constexpr size_t kMaxPlain = kMiB;
// All planes of a chunk together: a symbol of 6 bits takes a byte, so 8 bits become 10 (fp8), and
// what is packed may have a group's worth of bytes more.
constexpr size_t kMaxPlanesBytes = kMaxPlain / 4 * 5 + kMaxPlanes * kGroup1;

Error corrupt_planes(std::string_view reason) {
  return Error{Errc::corrupt, cat("float_planes: ", reason)};
}

const uint8_t* as_u8(ByteSpan bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

// Where each plane of `count` elements begins when they lie one behind the other.
std::array<size_t, kMaxPlanes + 1> plane_offsets(const TransformShape& shape, size_t count) {
  std::array<size_t, kMaxPlanes + 1> offsets{};
  for (unsigned i = 0; i < kMaxPlanes; i++)
    offsets[i + 1] = offsets[i] + (i < shape.planes ? packed_bytes(shape.bits[i], count) : 0);
  return offsets;
}

struct EncodeMemory {
  std::array<uint8_t, kMaxPlanesBytes> planes;
  PlaneMemory coding;
};
EncodeMemory& encode_memory() {
  thread_local const auto memory = std::make_unique_for_overwrite<EncodeMemory>();
  return *memory;
}

// Splits all of `plain`'s elements into `memory`; false when the transform does not fit them.
bool split(const CodecKernels& kernels, const Plan& plan, const TransformShape& shape,
           ByteSpan plain, EncodeMemory& memory) {
  const size_t count = plain.size() / shape.element_bytes;
  const auto offsets = plane_offsets(shape, count);
  for (size_t at = 0; at < count; at += kBlockElements) {
    PlanePointers planes{};
    for (unsigned i = 0; i < shape.planes; i++)
      planes[i] = memory.planes.data() + offsets[i] + packed_bytes(shape.bits[i], at);
    if (!split_block(kernels, plan.transform, plan.bias, as_u8(plain) + at * shape.element_bytes,
                     std::min(kBlockElements, count - at), planes))
      return false;
  }
  return true;
}

// nullopt when the frame would take more than `limit`.
Result<std::optional<Buffer>> write_frame(const CodecKernels& kernels, EntropyCoder coder,
                                          const Plan& plan, const TransformShape& shape,
                                          ByteSpan plain, EncodeMemory& memory, size_t limit) {
  const size_t count = plain.size() / shape.element_bytes;
  const ByteSpan tail = plain.subspan(count * shape.element_bytes);
  const size_t head = kHeadBytes + shape.planes * kPlaneEntryBytes;
  const auto offsets = plane_offsets(shape, count);
  // Where the coded plane is most of an element exact shares are worth their time: FP8 and int8
  // get 0.05 % smaller, the others 0.02 %.
  const size_t count_every = shape.element_bytes == 1 ? 1 : 8;
  Buffer frame;
  const auto append = [&](ByteSpan bytes) {
    frame.insert(frame.end(), bytes.begin(), bytes.end());
  };
  for (unsigned i = 0; i < shape.planes; i++) {
    const std::span<const uint8_t> plane(memory.planes.data() + offsets[i],
                                         offsets[i + 1] - offsets[i]);
    const EncodedPlane encoded = CAKE_TRY(
        plan.has_matches ? encode_matching_plane(plane, memory.coding)
                         : encode_plane(plane, coder, count_every, kernels, memory.coding));
    if (i == 0) {
      // The others may be raw, but no larger.
      frame.reserve(std::min(
          limit, head + encoded.bytes.size() + offsets[shape.planes] - offsets[1] + tail.size()));
      frame.resize(head);
    }
    if (frame.size() + encoded.bytes.size() + tail.size() > limit) return std::nullopt;
    append(std::as_bytes(encoded.bytes));
    store_le(
        &frame[kHeadBytes + i * kPlaneEntryBytes],
        static_cast<uint32_t>(static_cast<size_t>(encoded.coding) | encoded.bytes.size() << 8));
  }
  append(tail);
  frame[0] = std::byte{kVersion};
  frame[1] = static_cast<std::byte>(plan.transform);
  frame[2] = std::byte{plan.bias};
  frame[3] = static_cast<std::byte>(shape.planes);
  // It waits for the disk in a queue that is counted by sizes.
  if (frame.capacity() - frame.size() > frame.size() / 8) frame.shrink_to_fit();
  return frame;
}

}  // namespace

bool FloatPlanesCodec::has_transform(Dtype dtype) {
  return transform_for(dtype) != Transform::bytes;
}

Result<std::optional<Buffer>> FloatPlanesCodec::encode(ByteSpan plain, Dtype dtype) const {
  if (plain.size() > kMaxPlain) return std::nullopt;
  const std::optional<Plan> plan = CAKE_TRY(make_plan(kernels_, plain, dtype));
  if (!plan) return std::nullopt;
  EncodeMemory& memory = encode_memory();
  Plan used = *plan;
  TransformShape shape = transform_shape(used.transform);
  if (!split(kernels_, used, shape, plain, memory)) {
    // Elements that the sample did not show.
    used = used.otherwise();
    shape = transform_shape(used.transform);
    CAKE_CHECK(split(kernels_, used, shape, plain, memory));
  }
  return write_frame(kernels_, coder_, used, shape, plain, memory, worthwhile_bytes(plain.size()));
}

// --- Decoding ---

namespace {

struct DecodeMemory {
  std::array<uint8_t, kMaxPlanesBytes> planes;
  std::array<std::array<uint8_t, kBlockElements>, kMaxPlanes> blocks;
};
DecodeMemory& decode_memory() {
  thread_local const auto memory = std::make_unique_for_overwrite<DecodeMemory>();
  return *memory;
}

struct Frame {
  Transform transform{};
  uint8_t bias = 0;
  TransformShape shape;
  size_t count = 0;  // elements
  struct Plane {
    PlaneCoding coding{};
    std::span<const uint8_t> encoded;
  };
  std::array<Plane, kMaxPlanes> planes;
  std::span<const uint8_t> tail;
};

Result<Frame> parse_frame(std::span<const uint8_t> encoded, size_t plain_bytes) {
  if (plain_bytes > kMaxPlain) return corrupt_planes("chunk too long");
  if (encoded.size() < kHeadBytes) return corrupt_planes("truncated");
  if (encoded[0] != kVersion) return corrupt_planes("unknown version");
  Frame frame;
  frame.transform = static_cast<Transform>(encoded[1]);
  frame.bias = encoded[2];
  frame.shape = transform_shape(frame.transform);
  if (frame.shape.element_bytes == 0) return corrupt_planes("unknown transform");
  if (encoded[3] != frame.shape.planes) return corrupt_planes("wrong number of planes");
  size_t at = kHeadBytes + frame.shape.planes * kPlaneEntryBytes;
  if (at > encoded.size()) return corrupt_planes("truncated");
  for (unsigned i = 0; i < frame.shape.planes; i++) {
    const uint32_t entry = load_le32(reinterpret_cast<const std::byte*>(encoded.data()) +
                                     kHeadBytes + i * kPlaneEntryBytes);
    const size_t bytes = entry >> 8;
    if (bytes > encoded.size() - at) return corrupt_planes("plane beyond the end");
    frame.planes[i] = {static_cast<PlaneCoding>(entry & 0xff), encoded.subspan(at, bytes)};
    at += bytes;
  }
  frame.count = plain_bytes / frame.shape.element_bytes;
  frame.tail = encoded.subspan(at);
  if (frame.tail.size() != plain_bytes % frame.shape.element_bytes)
    return corrupt_planes("another length than the chunk");
  return frame;
}

// Gives a plane block by block: in place when it is raw, decoded as it is asked for when it is rans
// with a byte an element, else decoded at once.
class BlockReader {
 public:
  static Result<BlockReader> open(const Frame::Plane& plane, unsigned bits, size_t count,
                                  const CodecKernels& kernels, std::span<uint8_t> whole,
                                  std::span<uint8_t> block) {
    BlockReader reader;
    reader.bits_ = bits;
    reader.block_ = block;
    if (plane.coding == PlaneCoding::rans && bits == 8 && count > 0) {
      static_assert(kBlockElements == kRansSegment);
      reader.rans_ = CAKE_TRY(RansReader::open(plane.encoded, whole.size(), kernels));
    } else if (plane.coding == PlaneCoding::raw) {
      if (plane.encoded.size() != whole.size())
        return corrupt_planes("raw plane of another length");
      reader.plane_ = plane.encoded.data();
    } else if (plane.coding == PlaneCoding::constant) {
      const size_t size = std::min(block.size(), whole.size());
      CAKE_TRY(decode_plane(plane.coding, plane.encoded, kernels, block.first(size)));
      reader.is_constant_ = true;
    } else {
      CAKE_TRY(decode_plane(plane.coding, plane.encoded, kernels, whole));
      reader.plane_ = whole.data();
    }
    return reader;
  }

  // The block that begins at element `at`.
  Result<const uint8_t*> next(size_t at, size_t count, std::span<const uint8_t> ahead) {
    if (is_constant_) return block_.data();
    if (!rans_) return plane_ + packed_bytes(bits_, at);
    CAKE_TRY(rans_->next(block_.first(count), ahead));
    return block_.data();
  }
  // The same, where it is read in place.
  std::span<const uint8_t> in_place(size_t at, size_t count) const {
    if (is_constant_ || rans_) return {};
    const size_t begin = packed_bytes(bits_, at);
    return {plane_ + begin, packed_bytes(bits_, at + count) - begin};
  }

  Status finish() const { return rans_ ? rans_->finish() : Status(); }

 private:
  unsigned bits_ = 8;
  bool is_constant_ = false;
  const uint8_t* plane_ = nullptr;
  std::span<uint8_t> block_;
  std::optional<RansReader> rans_;
};

}  // namespace

Status FloatPlanesCodec::decode(ByteSpan encoded, MutableByteSpan plain) const {
  const Frame frame = CAKE_TRY(parse_frame({as_u8(encoded), encoded.size()}, plain.size()));
  DecodeMemory& memory = decode_memory();
  const auto offsets = plane_offsets(frame.shape, frame.count);
  std::array<std::optional<BlockReader>, kMaxPlanes> readers;
  for (unsigned i = 0; i < frame.shape.planes; i++)
    readers[i] = CAKE_TRY(BlockReader::open(
        frame.planes[i], frame.shape.bits[i], frame.count, kernels_,
        {memory.planes.data() + offsets[i], offsets[i + 1] - offsets[i]}, memory.blocks[i]));
  auto* const out = reinterpret_cast<uint8_t*>(plain.data());
  for (size_t at = 0; at < frame.count; at += kBlockElements) {
    const size_t count = std::min(kBlockElements, frame.count - at);
    // As good as noise, and large: most of what is read from memory.
    const std::span<const uint8_t> last_plane =
        readers[frame.shape.planes - 1]->in_place(at, count);
    ConstPlanePointers planes{};
    for (unsigned i = 0; i < frame.shape.planes; i++)
      planes[i] = CAKE_TRY(readers[i]->next(at, count, last_plane));
    merge_block(kernels_, frame.transform, frame.bias, planes, count,
                out + at * frame.shape.element_bytes);
  }
  for (unsigned i = 0; i < frame.shape.planes; i++) CAKE_TRY(readers[i]->finish());
  std::copy(frame.tail.begin(), frame.tail.end(), out + frame.count * frame.shape.element_bytes);
  return {};
}

}  // namespace cake
