// Names made from bytes: BLAKE3-256 for chunks, XXH3-64 for reads, and the two hashes a hub uses.
#pragma once

#include <array>
#include <compare>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "store/base/bytes.h"

namespace cake {

constexpr size_t kDigestBytes = 32;

// BLAKE3-256 of a chunk's plain bytes: its name in every store.
struct Digest {
  std::array<std::byte, kDigestBytes> bytes{};

  std::string hex() const { return cake::hex(bytes); }
  // All zero: "not known yet" in a recipe segment.
  bool is_zero() const { return *this == Digest{}; }
  auto operator<=>(const Digest&) const = default;  // NOLINT(modernize-use-nullptr)
  static std::optional<Digest> from_hex(std::string_view text);
};

struct DigestHash {
  size_t operator()(const Digest& digest) const {
    size_t value;
    std::memcpy(&value, digest.bytes.data(), sizeof value);
    return value;
  }
};

// Its first eight bytes: a set of them says "surely not", or "probably".  In the order of the
// digests, so that what is evicted in that order goes to few pages of the index.
inline uint64_t digest_key(const Digest& digest) {
  return __builtin_bswap64(load_le64(digest.bytes.data()));
}

Digest blake3(ByteSpan bytes);

// XXH3-64: catches disk errors on every read at memory speed.  Not proof against an enemy.
uint64_t xxh3(ByteSpan bytes);

// Incremental hash of a whole file, as the hub names it.
enum class FileHash {
  sha256,         // LFS and Xet files: SHA-256 of the bytes
  git_blob_sha1,  // plain files: SHA-1 of "blob SIZE\0" and the bytes
};

// Thread-compatible.
class FileHasher {
 public:
  // `file_bytes` is the whole length (git puts it in front); unused for sha256.
  FileHasher(FileHash kind, uint64_t file_bytes);
  ~FileHasher();
  FileHasher(FileHasher&&) noexcept;
  FileHasher& operator=(FileHasher&&) noexcept;
  void update(ByteSpan bytes);
  // Lower-case hex.  Call once, last.
  std::string finish_hex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whole input at once.
std::string file_hash_hex(FileHash kind, ByteSpan bytes);

}  // namespace cake
