#include "store/base/direct_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace cake {

namespace {

// Holds what is written at a time (PutQueue::kBatchBytes and a chunk).  Of 1, 2 and 4 MiB none was
// faster than the others (tests/bench/first_load.py loopback).
constexpr size_t kStagingBytes = 4 * kMiB;

}  // namespace

DirectFile::DirectFile(const std::string& path) {
  if (Result<File> file = File::open(path, File::Mode::read_write, O_DIRECT))
    file_ = std::move(*file);
}

Status DirectFile::write_parts_at(uint64_t offset, std::span<const ByteSpan> parts) {
  if (staging_ == nullptr)
    staging_.reset(static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, kStagingBytes)));
  if (staging_ == nullptr) throw std::bad_alloc();
  size_t filled = 0;
  const auto write_staged = [&]() -> Status {
    const size_t padded = align_up(filled, kDirectAlignment);
    std::memset(staging_.get() + filled, 0, padded - filled);
    CAKE_TRY(file_.write_at(offset, ByteSpan(staging_.get(), padded)));
    offset += padded;
    filled = 0;
    return {};
  };
  for (ByteSpan part : parts) {
    while (!part.empty()) {
      const size_t fits = std::min(part.size(), kStagingBytes - filled);
      std::memcpy(staging_.get() + filled, part.data(), fits);
      filled += fits;
      part = part.subspan(fits);
      if (filled == kStagingBytes) CAKE_TRY(write_staged());
    }
  }
  if (filled > 0) CAKE_TRY(write_staged());
  return {};
}

}  // namespace cake
