// safetensors: https://github.com/huggingface/safetensors, "Format".
#pragma once

#include <string_view>

#include "store/base/result.h"
#include "store/format/layout.h"

namespace cake {

// The prefix that says how long the JSON is.
constexpr uint64_t kSafetensorsLengthBytes = 8;
// 100 MB is the reference implementation's own cap; without it a hostile length makes us allocate
// before we have read a byte of JSON.
constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// How long the header is, length prefix included, from the first 8 bytes of a file of `file_bytes`.
// corrupt when the length is beyond the cap or the file.
Result<uint64_t> safetensors_header_bytes(ByteSpan first_8, uint64_t file_bytes);

// Maps a safetensors header to its layout.  Pure: no I/O; input is hostile.
//
// `header` is the start of the file, at least safetensors_header_bytes() long; bytes after the
// header are ignored.  Refuses what the reference reader refuses, duplicate names, which two
// readers could take differently, and more than 1,024 dimensions or 2^20 members of "__metadata__".
// An unknown dtype is accepted with the size its offsets give.
//
// Errors: corrupt   with the reason, for the log
Result<Layout> parse_safetensors(ByteSpan header, uint64_t file_bytes);

// Bits an element of the type takes; 0 for Dtype::bytes.
unsigned dtype_bits(Dtype dtype);
// By the header's spelling ("BF16"); an unknown name is Dtype::bytes, whose own name is "bytes".
Dtype dtype_from_name(std::string_view name);
std::string_view dtype_name(Dtype dtype);

}  // namespace cake
