// A plane coded with rANS: segments with a table each, one stream (man/cakefs-store.5, "rans").
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "store/base/bytes.h"
#include "store/base/result.h"
#include "store/codec/kernels.h"

namespace cake {

// Encodes planes of up to 1 MiB; holds the memory that this takes, so keep one a thread.
// Thread-compatible.
class RansWriter {
 public:
  RansWriter();
  ~RansWriter();
  // Of the lines of 64 bytes every `count_every`-th is counted.  The answer is the writer's until
  // the next call.
  std::span<const uint8_t> encode(std::span<const uint8_t> plane, size_t count_every,
                                  const CodecKernels& kernels);

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

// Decodes one plane, segment by segment.  The encoded bytes are hostile and outlive the reader.
// Confined to a thread.
class RansReader {
 public:
  static Result<RansReader> open(std::span<const uint8_t> encoded, size_t plane_bytes,
                                 const CodecKernels& kernels);
  // The next segment: kRansSegment bytes, or what is left.  Meanwhile memory brings `ahead`, which
  // is no longer and will be read next.
  Status next(std::span<uint8_t> out, std::span<const uint8_t> ahead = {});
  // After the last segment: that nothing is left over.
  Status finish() const;

 private:
  RansReader(const CodecKernels& kernels, std::span<const uint8_t> tables,
             std::span<const uint8_t> stream)
      : kernels_(&kernels), tables_(tables), stream_(stream) {}
  struct Escapes {
    size_t count = 0;
    unsigned rare_count = 0;
    std::span<const uint8_t> rare, indices;
  };
  Status read_table(size_t symbols, RansTable& table, Escapes& escapes);

  const CodecKernels* kernels_;
  std::span<const uint8_t> tables_, stream_;  // what is left of them
  RansStates states_;
};

}  // namespace cake
