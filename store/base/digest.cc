#include "store/base/digest.h"

#include <blake3.h>
#include <openssl/evp.h>

#ifdef CAKE_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#include "store/base/result.h"

namespace cake {

std::optional<Digest> Digest::from_hex(std::string_view text) {
  Digest digest;
  if (!parse_hex(text, digest.bytes)) return std::nullopt;
  return digest;
}

namespace {

Digest hash_blake3(ByteSpan bytes) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, bytes.data(), bytes.size());
  Digest digest;
  blake3_hasher_finalize(&hasher, reinterpret_cast<uint8_t*>(digest.bytes.data()),
                         digest.bytes.size());
  return digest;
}

}  // namespace

Digest blake3(ByteSpan bytes) {
  // The library remembers the CPU's features in a plain global on first use: one thread does that
  // before any other hashes.
  static const Digest first_use = hash_blake3({});
  return bytes.empty() ? first_use : hash_blake3(bytes);
}

uint64_t xxh3(ByteSpan bytes) {
  // As with blake3.
  static const uint64_t first_use = XXH3_64bits("", 0);
  return bytes.empty() ? first_use : XXH3_64bits(bytes.data(), bytes.size());
}

struct FileHasher::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

FileHasher::FileHasher(FileHash kind, uint64_t file_bytes) : impl_(std::make_unique<Impl>()) {
  CAKE_CHECK(impl_->context != nullptr);
  const EVP_MD* algorithm = kind == FileHash::sha256 ? EVP_sha256() : EVP_sha1();
  CAKE_CHECK(EVP_DigestInit_ex(impl_->context, algorithm, nullptr) == 1);
  if (kind == FileHash::git_blob_sha1) {
    const std::string prefix = "blob " + std::to_string(file_bytes);
    // With its NUL: git's object header.
    update({reinterpret_cast<const std::byte*>(prefix.c_str()), prefix.size() + 1});
  }
}
FileHasher::~FileHasher() = default;
FileHasher::FileHasher(FileHasher&&) noexcept = default;
FileHasher& FileHasher::operator=(FileHasher&&) noexcept = default;

void FileHasher::update(ByteSpan bytes) {
  CAKE_CHECK(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}

std::string FileHasher::finish_hex() {
  std::array<std::byte, EVP_MAX_MD_SIZE> out;
  unsigned length = 0;
  CAKE_CHECK(EVP_DigestFinal_ex(impl_->context, reinterpret_cast<unsigned char*>(out.data()),
                                &length) == 1);
  return hex(ByteSpan(out).first(length));
}

std::string file_hash_hex(FileHash kind, ByteSpan bytes) {
  FileHasher hasher(kind, bytes.size());
  hasher.update(bytes);
  return hasher.finish_hex();
}

}  // namespace cake
