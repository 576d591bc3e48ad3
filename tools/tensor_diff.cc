#include "tools/tensor_diff.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "store/format/safetensors.h"

namespace cake {
namespace {

constexpr uint64_t kWindowBytes = 4 * kMiB;

// Whether the store's digests alone say that two runs are the same; nothing is read for it.
Result<bool> is_same_by_digest(const ModelFile& file_a, const Unit& a, const ModelFile& file_b,
                               const Unit& b) {
  if (!file_a.content() || !file_b.content() || a.range.length != b.range.length) return false;
  const auto digests_of = [](const ModelFile& file,
                             ByteRange range) -> Result<std::vector<Digest>> {
    std::vector<Digest> digests;
    CAKE_TRY(file.each_extent([&](const KnownExtent& known) -> Status {
      if (known.extent.offset >= range.offset && known.extent.offset < range.end())
        digests.push_back(known.digest);
      return {};
    }));
    return digests;
  };
  if (!CAKE_TRY(file_a.is_cut()) || !CAKE_TRY(file_b.is_cut())) return false;
  const std::vector<Digest> ours = CAKE_TRY(digests_of(file_a, a.range));
  const bool is_known =
      std::none_of(ours.begin(), ours.end(), [](const Digest& digest) { return digest.is_zero(); });
  return is_known && !ours.empty() && ours == CAKE_TRY(digests_of(file_b, b.range));
}

}  // namespace

const char* state_name(Comparison::State state) {
  switch (state) {
    case Comparison::State::same:
      return "same";
    case Comparison::State::near:
      return "near";
    case Comparison::State::different:
      return "different";
    case Comparison::State::only_a:
      return "only in A";
    case Comparison::State::only_b:
      return "only in B";
  }
  return "?";
}

Result<std::vector<Unit>> list_units(const std::vector<ModelFile>& files) {
  std::vector<Unit> units;
  std::set<std::string> names;
  for (size_t i = 0; i < files.size(); i++) {
    const std::optional<Layout> layout = CAKE_TRY(files[i].layout());
    if (!layout) {
      if (names.insert(files[i].path()).second)
        units.push_back({files[i].path(), "", {}, 1, {0, files[i].bytes()}, i});
      continue;
    }
    for (const Tensor& tensor : layout->tensors)
      if (names.insert(tensor.name).second)
        units.push_back({tensor.name, tensor.dtype_name, tensor.shape, dtype_bits(tensor.dtype) / 8,
                         tensor.range, i});
  }
  return units;
}

void BitDifference::add(ByteSpan a, ByteSpan b) {
  CAKE_CHECK(a.size() == b.size());
  bytes_ += a.size();
  for (size_t i = 0; i < a.size(); i++) {
    const auto difference = std::to_integer<unsigned>(a[i] ^ b[i]);
    bits_ += static_cast<unsigned>(std::popcount(difference));
    counts_[(i % element_bytes_) * 256 + difference]++;
  }
}

uint64_t BitDifference::delta_bytes() const {
  double bits = 0;
  for (unsigned place = 0; place < element_bytes_; place++) {
    uint64_t total = 0;
    for (unsigned value = 0; value < 256; value++) total += counts_[place * 256 + value];
    for (unsigned value = 0; value < 256; value++) {
      const uint64_t count = counts_[place * 256 + value];
      if (count > 0)
        bits -= static_cast<double>(count) *
                std::log2(static_cast<double>(count) / static_cast<double>(total));
    }
  }
  return std::min(bytes_, static_cast<uint64_t>(std::llround(bits / 8)));
}

Result<Comparison> compare(const ModelFile& file_a, const Unit& a, const ModelFile& file_b,
                           const Unit& b) {
  Comparison result;
  result.bytes = a.range.length;
  result.delta_bytes = b.range.length;
  if (a.dtype != b.dtype || a.shape != b.shape || a.range.length != b.range.length) return result;
  result.state = Comparison::State::same;
  result.delta_bytes = 0;
  if (CAKE_TRY(is_same_by_digest(file_a, a, file_b, b))) return result;
  BitDifference difference(a.element_bytes);
  for (uint64_t at = 0; at < a.range.length; at += kWindowBytes) {
    const uint64_t length = std::min(kWindowBytes, a.range.length - at);
    const Buffer ours = CAKE_TRY(file_a.read({a.range.offset + at, length}));
    const Buffer theirs = CAKE_TRY(file_b.read({b.range.offset + at, length}));
    if (ours.size() != length || theirs.size() != length)
      return Error{Errc::corrupt, cat(a.name, ": a file ends too early")};
    difference.add(ours, theirs);
  }
  result.bits_differing = difference.bits();
  if (difference.bits() == 0) return result;
  result.delta_bytes = difference.delta_bytes();
  const double share =
      static_cast<double>(difference.bits()) / (8 * static_cast<double>(difference.bytes()));
  result.state = share <= kNearShare ? Comparison::State::near : Comparison::State::different;
  return result;
}

}  // namespace cake
