// How two runs of bytes compare, tensor by tensor: the same, near, or different.
#pragma once

#include <string>
#include <vector>

#include "tools/model_file.h"

namespace cake {

// What is compared: a tensor, or a file that has none.
struct Unit {
  std::string name;  // of the tensor; of a file, its path
  std::string dtype;
  std::vector<uint64_t> shape;
  unsigned element_bytes = 1;  // 0 or more than 8 counts as 1
  ByteRange range;
  size_t file = 0;  // index in the list of files
};

// Tensors of all files by name, and files without tensors.  A name that comes twice (two files with
// the same tensor) stands for the first.
Result<std::vector<Unit>> list_units(const std::vector<ModelFile>& files);

struct Comparison {
  enum class State { same, near, different, only_a, only_b };
  State state = State::different;
  uint64_t bytes = 0;           // of A's, or of the one there is
  uint64_t bits_differing = 0;  // of equal shape and dtype only
  // What B would take as a difference to A, estimated from the entropy of their XOR; B's length
  // where nothing would be gained.
  uint64_t delta_bytes = 0;
};
const char* state_name(Comparison::State state);

// Unrelated weights differ in nearly half of their bits; fine-tunes in far fewer.
constexpr double kNearShare = 0.3;

// Adds up what differs between two runs of equal length.  Pure.
class BitDifference {
 public:
  explicit BitDifference(unsigned element_bytes)
      : element_bytes_(element_bytes == 0 || element_bytes > 8 ? 1 : element_bytes),
        counts_(element_bytes_ * 256) {}
  // Spans of equal length, one behind the other; each a multiple of the element.
  void add(ByteSpan a, ByteSpan b);
  uint64_t bits() const { return bits_; }
  uint64_t bytes() const { return bytes_; }
  // Order-0 entropy of each byte of an element, summed up.
  uint64_t delta_bytes() const;

 private:
  const unsigned element_bytes_;
  std::vector<uint64_t> counts_;  // of XOR values, for each place in an element
  uint64_t bits_ = 0;
  uint64_t bytes_ = 0;
};

// Reads both, unless the store knows that their chunks are the same.
Result<Comparison> compare(const ModelFile& file_a, const Unit& a, const ModelFile& file_b,
                           const Unit& b);

}  // namespace cake
