// A pack from a hostile or broken disk: scanning it, reading its entries and decoding its records
// must end, stay in bounds and allocate no more than the file can hold.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "store/pack.h"
#include "store/pack_record.h"
#include "store/salvage.h"

namespace cake {
namespace {

// The headers are checked against uuid and offset, which no fuzzer guesses: inputs are offered as
// the parts of entries that this seals.  A first byte of 0 leaves the bytes as they are.
Buffer seal_entries(ByteSpan input, const PackHeader& pack) {
  Buffer file(kPackHeaderBytes);
  while (input.size() > 12) {
    EntryHeader header;
    header.kind = static_cast<EntryKind>(input[0]);
    header.codec = static_cast<CodecId>(input[1]);
    header.plain_bytes = load_le32(&input[2]);
    const size_t length = std::min<size_t>(load_le16(&input[6]), input.size() - 12);
    // Now and then the header claims more, or less, than there is.
    header.payload_bytes = static_cast<uint32_t>(length) + load_le32(&input[8]);
    file.resize(align_up(file.size(), kSmallAlignment));
    const auto bytes = encode_entry_header(header, pack, file.size());
    file.insert(file.end(), bytes.begin(), bytes.end());
    const ByteSpan payload = input.subspan(12, length);
    file.insert(file.end(), payload.begin(), payload.end());
    input = input.subspan(12 + length);
  }
  return file;
}

void decode_records(ByteSpan payload) {
  // Whatever they answer is right; that they answer is the test.
  (void)decode_snapshot_record(payload);
  (void)decode_ref_record(payload);
  (void)decode_recipe_record(payload);
  (void)decode_segment_record(payload);
}

}  // namespace
}  // namespace cake

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cake;
  static MemoryBudget budget(64 * kMiB);
  static BufferPool buffers(budget);
  static const File file(::memfd_create("pack", MFD_CLOEXEC), "memfd");
  const ByteSpan input(reinterpret_cast<const std::byte*>(data), size);
  const PackHeader pack;
  Buffer bytes = to_buffer(input);
  if (!input.empty() && input[0] != std::byte{0}) bytes = seal_entries(input.subspan(1), pack);
  (void)decode_pack_header(bytes);
  CAKE_CHECK(file.truncate(0).ok() && file.write_at(0, bytes).ok());

  uint64_t last_end = 0;
  const Status scanned = scan_pack(file, pack, 0, bytes.size(), [&](const PackEntry& entry) {
    CAKE_CHECK(entry.offset >= last_end && entry.end() <= bytes.size());
    last_end = entry.end();
    const ByteSpan payload =
        ByteSpan(bytes).subspan(entry.payload_offset(), entry.header.payload_bytes);
    decode_records(payload);
    const Location location{1,
                            entry.payload_offset(),
                            entry.header.payload_bytes,
                            entry.header.plain_bytes,
                            entry.header.codec,
                            entry.header.checksum};
    (void)read_chunk(location, buffers, [&](MutableByteSpan out) {
      return file.read_exactly_at(location.offset, out);
    });
    return Status();
  });
  CAKE_CHECK(scanned.ok());
  return 0;
}
