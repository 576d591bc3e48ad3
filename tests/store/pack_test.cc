#include "store/pack.h"

#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <algorithm>
#include <iterator>

#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

NewEntry entry_of(const Buffer& payload, uint64_t ordinal) {
  EntryHeader header;
  header.payload_bytes = header.plain_bytes = static_cast<uint32_t>(payload.size());
  header.ordinal = ordinal;
  header.checksum = xxh3(payload);
  header.digest = blake3(payload);
  header.dtype = Dtype::bf16;
  return {header, payload};
}

// A pack in a directory of its own.
struct PackFixture {
  TempDir dir;
  std::unique_ptr<Index> index = must(Index::open(dir / "index.db"));
  LockedPack made = must(create_pack(dir.path(), *index));
  PackHeader header = made.header;
  std::string path = made.file.path();
  PackWriter writer{std::move(made)};

  File open(File::Mode mode = File::Mode::read) { return must(File::open(path, mode)); }
  std::vector<uint64_t> ordinals() {
    const File file = open();
    std::vector<uint64_t> seen;
    must(scan_pack(file, header, 0, must(file.size()), [&](const PackEntry& entry) -> Status {
      seen.push_back(entry.header.ordinal);
      return {};
    }));
    return seen;
  }
  std::vector<uint64_t> append(const std::vector<Buffer>& payloads,
                               PackWriter::Way way = PackWriter::Way::past_cache) {
    std::vector<NewEntry> entries;
    for (size_t i = 0; i < payloads.size(); i++) entries.push_back(entry_of(payloads[i], i));
    return must(writer.append(entries, way));
  }
};

TEST(Pack, AlignsBigEntriesToBlocksAndSmallOnesTo64) {
  PackFixture pack;
  const std::vector<Buffer> payloads = {random_bytes(1, 100), random_bytes(2, 64 * kKiB),
                                        random_bytes(3, 64 * kKiB - 1), random_bytes(4, kMiB)};
  const auto offsets = pack.append(payloads);
  EXPECT_EQ(offsets[0], kPackHeaderBytes + kEntryHeaderBytes);
  EXPECT_EQ((offsets[1] - kEntryHeaderBytes) % 4096, 0u);
  EXPECT_EQ((offsets[2] - kEntryHeaderBytes) % 64, 0u);
  EXPECT_EQ((offsets[3] - kEntryHeaderBytes) % 4096, 0u);
  EXPECT_EQ(pack.writer.end(), offsets[3] + kMiB);
  PackReader reader(pack.dir.path(), *pack.index);
  for (size_t i = 0; i < payloads.size(); i++) {
    Buffer read(payloads[i].size());
    must(reader.read(pack.writer.id(), offsets[i], read));
    EXPECT_EQ(read, payloads[i]);
  }
}

TEST(Pack, ReadsLargePayloadsPastThePageCache) {
  PackFixture pack;
  const std::vector<Buffer> payloads = {random_bytes(1, 100), random_bytes(2, 64 * kKiB),
                                        random_bytes(3, kMiB), random_bytes(4, kMiB - 1)};
  const auto offsets = pack.append(payloads);
  PackReader reader(pack.dir.path(), *pack.index);
  MemoryBudget budget(64 * kMiB);
  BufferPool buffers(budget);
  for (size_t i = 0; i < payloads.size(); i++) {
    const auto read = must(reader.read(pack.writer.id(), offsets[i], payloads[i].size(), buffers));
    EXPECT_EQ(to_buffer(std::as_const(*read).bytes()), payloads[i]);
  }
  // What lies behind the last one's block is not there.
  const auto beyond = reader.read(pack.writer.id(), offsets[3], kMiB + 4096, buffers);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, Errc::corrupt);
}

// The page cache, the disk and what lies between two appends agree whichever way each went.
TEST(Pack, WritesBothWaysInTurn) {
  PackFixture pack;
  const std::vector<std::vector<size_t>> batches = {
      {kMiB},         {100, 70'000, 200},      {300},          {65'536 - 128, 65'536},
      {1, 2, 3},      {5 * kMiB, 7, kMiB - 1}, {64 * kKiB},    {3'968, 64 * kKiB - 1},
      {2 * kMiB + 1}, {100'000, 100'000},      {50, 2 * kMiB},
  };
  std::vector<Buffer> payloads;
  std::vector<uint64_t> offsets;
  for (uint64_t round = 0; round < 60; round++) {
    std::vector<Buffer> batch;
    for (const size_t bytes : batches[round * 7 % batches.size()])
      batch.push_back(random_bytes(payloads.size() + batch.size(), bytes));
    const auto way = round % 3 == 0 ? PackWriter::Way::through_cache : PackWriter::Way::past_cache;
    for (const uint64_t offset : pack.append(batch, way)) offsets.push_back(offset);
    std::move(batch.begin(), batch.end(), std::back_inserter(payloads));
  }
  const auto check = [&] {
    PackReader reader(pack.dir.path(), *pack.index);
    MemoryBudget budget(64 * kMiB);
    BufferPool buffers(budget);
    for (size_t i = 0; i < payloads.size(); i++) {
      Buffer cached(payloads[i].size());
      must(reader.read(pack.writer.id(), offsets[i], cached));
      EXPECT_EQ(cached, payloads[i]) << i;
      const auto direct =
          must(reader.read(pack.writer.id(), offsets[i], payloads[i].size(), buffers));
      EXPECT_EQ(to_buffer(std::as_const(*direct).bytes()), payloads[i]) << i;
    }
    EXPECT_EQ(pack.ordinals().size(), payloads.size());
  };
  check();
  must(pack.writer.sync());
  pack.open().drop_cache({});
  check();
}

TEST(Pack, KeepsWhatIsLargeOutOfThePageCache) {
  PackFixture pack;
  pack.append({random_bytes(1, kMiB)});  // the first one's block has the pack's header in it
  const auto offsets = pack.append({random_bytes(2, 4 * kMiB)});
  const File file = pack.open();
  struct statfs facts {};
  ASSERT_EQ(fstatfs(file.fd(), &facts), 0);
  if (!DirectFile(pack.path).is_open() || facts.f_type == TMPFS_MAGIC)
    GTEST_SKIP() << "this file system has no O_DIRECT";
  const auto cached_pages = [&](ByteRange range) {
    void* const mapped = mmap(nullptr, range.end(), PROT_READ, MAP_SHARED, file.fd(), 0);
    EXPECT_NE(mapped, MAP_FAILED);
    std::vector<unsigned char> pages((range.end() + 4095) / 4096);
    EXPECT_EQ(mincore(mapped, range.end(), pages.data()), 0);
    munmap(mapped, range.end());
    return std::count_if(pages.begin() + static_cast<ptrdiff_t>(range.offset / 4096), pages.end(),
                         [](unsigned char page) { return page & 1; });
  };
  EXPECT_EQ(cached_pages({offsets[0] - kEntryHeaderBytes, 4 * kMiB}), 0);
  const auto through = pack.append({random_bytes(3, kMiB)}, PackWriter::Way::through_cache);
  EXPECT_GE(cached_pages({through[0] - kEntryHeaderBytes, kMiB}), 256);
}

TEST(Pack, ScansEveryEntryInOrder) {
  PackFixture pack;
  std::vector<Buffer> payloads;
  for (uint64_t i = 0; i < 300; i++) payloads.push_back(random_bytes(i, 1 + i * i));
  pack.append(payloads);
  const File file = pack.open();
  uint64_t seen = 0;
  must(scan_pack(file, pack.header, 0, must(file.size()), [&](const PackEntry& entry) -> Status {
    EXPECT_EQ(entry.header.ordinal, seen);
    EXPECT_EQ(entry.header.digest, blake3(payloads[seen]));
    EXPECT_EQ(entry.header.checksum, xxh3(payloads[seen]));
    EXPECT_EQ(entry.header.dtype, Dtype::bf16);
    Buffer read(entry.header.payload_bytes);
    must(file.read_exactly_at(entry.payload_offset(), read));
    EXPECT_EQ(read, payloads[seen]);
    seen++;
    return {};
  }));
  EXPECT_EQ(seen, 300u);
}

TEST(Pack, SkipsTornTail) {
  PackFixture pack;
  const auto offsets = pack.append({random_bytes(1, 100'000), random_bytes(2, 100'000)});
  must(pack.open(File::Mode::read_write).truncate(offsets[1] + 50'000));
  EXPECT_EQ(pack.ordinals(), std::vector<uint64_t>{0});
  must(pack.open(File::Mode::read_write).truncate(offsets[1] - 1));
  EXPECT_EQ(pack.ordinals(), std::vector<uint64_t>{0});
}

TEST(Pack, GoesOnBehindDamagedHeader) {
  PackFixture pack;
  const auto offsets =
      pack.append({random_bytes(1, 100), random_bytes(2, 100'000), random_bytes(3, 300)});
  const Buffer flipped = {std::byte{0xff}};
  must(pack.open(File::Mode::read_write).write_at(offsets[1] - kEntryHeaderBytes + 20, flipped));
  EXPECT_EQ(pack.ordinals(), (std::vector<uint64_t>{0, 2}));
}

TEST(Pack, SkipsHoles) {
  PackFixture pack;
  const auto offsets =
      pack.append({random_bytes(1, 100), random_bytes(2, 64 * kMiB), random_bytes(3, 300)});
  const uint64_t start = offsets[1] - kEntryHeaderBytes;
  must(pack.open(File::Mode::read_write)
           .punch_hole({start, align_up(64 * kMiB + kEntryHeaderBytes, 4096) - 4096}));
  EXPECT_EQ(pack.ordinals(), (std::vector<uint64_t>{0, 2}));
}

// Bytes of a model may look like a pack's entry, when someone wants them to.
TEST(Pack, TakesNoEntryOfAnotherPackOrPlaceForItsOwn) {
  PackFixture pack;
  const Buffer inner = random_bytes(1, 64);
  Buffer forged(4096);
  const EntryHeader header = entry_of(inner, 77).header;
  PackHeader other;
  other.uuid[0] = std::byte{1};
  for (size_t at = 0; at + 256 <= forged.size(); at += 256) {
    // One with another pack's uuid, one of this pack copied from elsewhere.
    const uint64_t offset = kPackHeaderBytes + kEntryHeaderBytes + at;
    const auto bytes = at % 512 == 0 ? encode_entry_header(header, other, offset)
                                     : encode_entry_header(header, pack.header, offset + 64);
    std::memcpy(&forged[at], bytes.data(), bytes.size());
  }
  const auto offsets = pack.append({forged, inner});
  // Even when the entry around them is damaged and the scan looks inside.
  const Buffer flipped = {std::byte{0xff}};
  must(pack.open(File::Mode::read_write).write_at(offsets[0] - kEntryHeaderBytes, flipped));
  EXPECT_EQ(pack.ordinals(), std::vector<uint64_t>{1});
}

TEST(Pack, HasOneWriter) {
  PackFixture pack;
  const auto row = *must(pack.index->find_pack(pack.writer.id()));
  EXPECT_FALSE(must(lock_pack(pack.dir.path(), *pack.index, row)));
}

TEST(Pack, IsNotWrittenAgainOnceSealed) {
  TempDir dir;
  auto index = must(Index::open(dir / "index.db"));
  const uint32_t id = must(create_pack(dir.path(), *index)).row.id;
  const auto before = *must(index->find_pack(id));
  EXPECT_TRUE(must(lock_pack(dir.path(), *index, before)));
  must(index->seal_pack(id, 64));
  EXPECT_FALSE(must(lock_pack(dir.path(), *index, before)));
}

TEST(Pack, ReaderSaysThatShortPackIsCorruptAndMissingOneGone) {
  PackFixture pack;
  const auto offsets = pack.append({random_bytes(1, 1000)});
  PackReader reader(pack.dir.path(), *pack.index);
  Buffer out(2000);
  const auto beyond = reader.read(pack.writer.id(), offsets[0], out);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, Errc::corrupt);
  const auto absent = reader.read(99, 0, out);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Errc::not_found);
}

TEST(Pack, ReaderReadsMorePacksThanItKeepsOpen) {
  TempDir dir;
  auto index = must(Index::open(dir / "index.db"));
  std::vector<std::pair<uint32_t, uint64_t>> places;
  for (uint64_t i = 0; i < PackReader::kMaxOpenPacks + 20; i++) {
    PackWriter writer(must(create_pack(dir.path(), *index)));
    const Buffer payload = random_bytes(i, 32);
    const NewEntry entry = entry_of(payload, i);
    places.emplace_back(writer.id(),
                        must(writer.append(std::span(&entry, 1), PackWriter::Way::past_cache))[0]);
  }
  PackReader reader(dir.path(), *index);
  for (int round = 0; round < 2; round++)
    for (uint64_t i = 0; i < places.size(); i++) {
      Buffer out(32);
      must(reader.read(places[i].first, places[i].second, out));
      ASSERT_EQ(out, random_bytes(i, 32));
    }
}

TEST(Pack, RefusesHeaderOfNewerVersionAndGarbage) {
  auto bytes = encode_pack_header({});
  EXPECT_TRUE(decode_pack_header(bytes));
  bytes[8] = std::byte{9};
  EXPECT_EQ(decode_pack_header(bytes).error().code, Errc::unsupported);
  EXPECT_EQ(decode_pack_header(random_bytes(1, 64)).error().code, Errc::corrupt);
  EXPECT_EQ(decode_pack_header({}).error().code, Errc::corrupt);
}

}  // namespace
}  // namespace cake
