#include "fetch/readahead.h"

#include <gtest/gtest.h>

#include "tests/support/reading.h"

namespace cake {
namespace {

// A file of equal tensors behind a small header.
Extents tensors_of(uint64_t tensor_bytes, unsigned count, uint64_t header_bytes = 4096) {
  Layout layout;
  layout.header_bytes = header_bytes;
  for (unsigned i = 0; i < count; i++)
    layout.tensors.push_back({cat("t", i),
                              Dtype::u8,
                              "U8",
                              {tensor_bytes},
                              {header_bytes + i * tensor_bytes, tensor_bytes}});
  return Extents::from_layout(layout, header_bytes + count * tensor_bytes);
}

TEST(Readahead, ALoneTouchAsksForNothing) {
  Reading reader(Extents::uniform(kGiB));
  EXPECT_EQ(reader.touch(500 * kMiB, 64 * kKiB).bytes.length, 0u);
  // A page fault reads 1 MiB around itself, perhaps in two requests.
  EXPECT_EQ(reader.touch(300 * kMiB, 600 * kKiB).bytes.length, 0u);
  EXPECT_EQ(reader.touch(300 * kMiB + 600 * kKiB, 424 * kKiB).bytes.length, 0u);
}

TEST(Readahead, ARunIsReadAheadInAGrowingWindow) {
  Reading reader(Extents::uniform(kGiB));
  uint64_t asked_to = 0, longest = 0;
  for (uint64_t offset = 0; offset < 256 * kMiB; offset += kMiB) {
    const ByteRange ask = reader.touch(offset, kMiB).bytes;
    if (ask.length == 0) continue;
    EXPECT_GE(ask.offset, offset + kMiB) << "asks for what is being read";
    if (asked_to != 0) {
      EXPECT_EQ(ask.offset, asked_to) << "leaves a gap or asks twice";
    }
    asked_to = ask.end();
    longest = std::max(longest, asked_to - offset);
  }
  EXPECT_GE(longest, 64 * kMiB) << "the window did not grow";
  EXPECT_LE(longest, 129 * kMiB) << "the window is larger than allowed";
}

TEST(Readahead, TheWindowIsWhatTheReaderWillUseSoon) {
  // 20 MB/s and 50 ms a fetch: 200 ms ahead are 4 MB, and the least window is 8 MiB.
  Reading reader(Extents::uniform(kGiB), {}, 20'000);
  uint64_t longest = 0;
  for (uint64_t offset = 0; offset < 256 * kMiB; offset += kMiB)
    if (const ByteRange ask = reader.touch(offset, kMiB).bytes; ask.length != 0)
      longest = std::max(longest, ask.end() - offset);
  EXPECT_LE(longest, 9 * kMiB);
}

TEST(Readahead, SixteenThreadsAreSixteenStreams) {
  Reading reader(Extents::uniform(16 * kGiB));
  uint64_t asked = 0;
  for (uint64_t step = 0; step < 16; step++)
    for (uint64_t thread = 0; thread < 16; thread++) {
      const ByteRange ask = reader.touch(thread * kGiB + step * kMiB, kMiB).bytes;
      if (ask.length == 0) continue;
      EXPECT_EQ(ask.offset / kGiB, thread) << "asks for another thread's part";
      asked++;
    }
  EXPECT_GE(asked, 16u);
}

TEST(Readahead, RequestsThatPassEachOtherAreOneStream) {
  Reading reader(Extents::uniform(kGiB));
  for (uint64_t i = 0; i < 64; i += 4)
    for (const uint64_t k : {1, 0, 3, 2}) reader.touch((i + k) * kMiB, kMiB);
  EXPECT_TRUE(reader.has(70 * kMiB));
  EXPECT_LE(reader.fetched_bytes(), (64 + 128) * kMiB);
}

TEST(Readahead, ATensorIsReadAheadToItsEnd) {
  ReadaheadOptions options;
  options.prefetch = Prefetch::tensor;
  Reading reader(tensors_of(32 * kMiB, 8), options);
  reader.read(reader.tensor(3), 20 * kMiB);
  EXPECT_TRUE(reader.has(reader.tensor(4) - 1));
  EXPECT_FALSE(reader.has(reader.tensor(4)));
  reader.read(reader.tensor(3) + 20 * kMiB, 12 * kMiB);
  EXPECT_FALSE(reader.has(reader.tensor(4))) << "prefetch=tensor went on";
}

TEST(Readahead, GoesOnToTheNextTensorWhileThePatternHolds) {
  Reading reader(tensors_of(32 * kMiB, 32));
  reader.read(reader.tensor(0), 10 * 32 * kMiB);
  EXPECT_TRUE(reader.has(reader.tensor(10) + 16 * kMiB));
}

TEST(Readahead, ASequentialReadCostsEachByteOnceAndAsksForTheNextShard) {
  Reading reader(tensors_of(8 * kMiB, 32));
  uint64_t next_file = 0;
  for (uint64_t at = 0; at < reader.file_bytes(); at += kMiB)
    next_file = std::max(next_file, reader.touch(at, kMiB).next_file.end());
  EXPECT_EQ(reader.fetched_bytes(), reader.file_bytes());
  EXPECT_GE(next_file, 4 * kMiB);
}

TEST(Readahead, ATensorAtTheEndIsNoReasonForTheNextShard) {
  Reading reader(tensors_of(32 * kMiB, 32));
  for (uint64_t at = reader.tensor(31); at < reader.file_bytes(); at += kMiB)
    EXPECT_EQ(reader.touch(at, kMiB).next_file.length, 0u);
}

// Expert parallel: whole tensors of a quarter of the experts, contiguous or every fourth.
TEST(Readahead, SkippedExpertsAreNotFetched) {
  for (const bool is_scattered : {false, true}) {
    Reading reader(tensors_of(6 * kMiB, 4 * 64));
    for (unsigned layer = 0; layer < 4; layer++)
      for (unsigned expert = 0; expert < 16; expert++)
        reader.read(reader.tensor(layer * 64 + (is_scattered ? 4 * expert : expert)), 6 * kMiB);
    EXPECT_LE(reader.cost(64 * 6 * kMiB), 1.2) << (is_scattered ? "scattered" : "contiguous");
  }
}

// Experts fused in one tensor a layer.
TEST(Readahead, SkippedExpertsInsideOfATensorAreNotFetched) {
  for (const bool is_scattered : {false, true}) {
    Reading reader(tensors_of(32 * 8 * kMiB, 6));
    for (unsigned layer = 0; layer < 6; layer++)
      for (unsigned i = 0; i < 8; i++) {
        const unsigned expert = is_scattered ? 4 * i + i % 3 : 8 + i;
        reader.read(reader.tensor(layer) + expert * 8 * kMiB, 8 * kMiB);
      }
    EXPECT_LE(reader.cost(6 * 8 * 8 * kMiB), 1.2) << (is_scattered ? "scattered" : "contiguous");
  }
}

TEST(Readahead, SmallSkipsAreSkippedToo) {
  Reading reader(Extents::uniform(kGiB));
  for (unsigned i = 0; i < 128; i++) reader.touch(i * 4 * kMiB, kMiB);
  EXPECT_LE(reader.cost(128 * kMiB), 1.1);
}

// Tensor parallel: the second quarter of the rows of every tensor.
TEST(Readahead, ARowSliceOfEveryTensorIsAllThatIsFetched) {
  Reading reader(tensors_of(64 * kMiB, 24));
  for (unsigned i = 0; i < 24; i++) reader.read(reader.tensor(i) + 16 * kMiB, 16 * kMiB);
  EXPECT_LE(reader.cost(24 * 16 * kMiB), 1.15);
}

TEST(Readahead, ShuffledTensorsAreReadAheadEach) {
  Reading reader(tensors_of(16 * kMiB, 64));
  unsigned ahead = 0;
  for (unsigned i = 0; i < 64; i++) {
    const uint64_t start = reader.tensor(i * 37 % 64);
    for (uint64_t at = start; at < start + 16 * kMiB; at += kMiB)
      if (reader.touch(at, kMiB).bytes.length != 0) ahead++;
  }
  EXPECT_EQ(reader.fetched_bytes(), reader.file_bytes() - 4096) << "each byte once";
  EXPECT_GE(ahead, 64u);
}

// Once some were read whole, at the first touch: by preads of 1 MiB, or by faults with 512 KiB
// around them, which reach into the tensor before.
TEST(Readahead, ATensorIsAskedForAtItsFirstTouchOnceSuchAreReadWhole) {
  for (const bool is_mapped : {false, true}) {
    Reading reader(tensors_of(16 * kMiB, 64));
    unsigned at_once = 0;
    for (unsigned i = 0; i < 64; i++) {
      const uint64_t start = reader.tensor(i * 37 % 64) / (4 * kKiB) * (4 * kKiB);
      const uint64_t first = is_mapped && start >= 512 * kKiB ? start - 512 * kKiB : start;
      if (reader.touch(first, kMiB).bytes.end() >= start + 15 * kMiB) at_once++;
      for (uint64_t at = first + kMiB; at < start + 16 * kMiB; at += kMiB) reader.touch(at, kMiB);
    }
    EXPECT_GE(at_once, is_mapped ? 36u : 48u);
    EXPECT_LE(reader.fetched_bytes(), reader.file_bytes());
  }
}

// A router's choice: first MiB of tensors of which others were read whole.
TEST(Readahead, TheFirstTouchIsBelievedNoMoreOnceItWasWrong) {
  Reading reader(tensors_of(16 * kMiB, 256));
  for (unsigned i = 0; i < 8; i++) reader.read(reader.tensor(i * 37 % 256), 16 * kMiB);
  for (unsigned i = 8; i < 128; i++) reader.touch(reader.tensor(i * 37 % 256), kMiB);
  EXPECT_LE(reader.cost(8 * 16 * kMiB + 120 * kMiB), 1.3);
}

TEST(Readahead, RandomReadsOfTwoRequestsCostWhatTheyRead) {
  Reading reader(Extents::uniform(16 * kGiB));
  uint64_t at = 1;
  for (unsigned i = 0; i < 200; i++) {
    at = at * 6364136223846793005u + 1442695040888963407u;
    reader.read(at % (16 * kGiB - 4 * kMiB) / kMiB * kMiB, 2 * kMiB);
  }
  EXPECT_LE(reader.cost(400 * kMiB), 1.2);
}

TEST(Readahead, StaysWithinTheMemoryItIsGiven) {
  Reading reader(Extents::uniform(kGiB));
  for (uint64_t offset = 0; offset < 64 * kMiB; offset += kMiB)
    EXPECT_LE(reader.touch(offset, kMiB, 3 * kMiB).bytes.length, 3 * kMiB);
  EXPECT_EQ(reader.touch(64 * kMiB, kMiB, 0).bytes.length, 0u);
}

TEST(Readahead, OffMeansOff) {
  ReadaheadOptions options;
  options.prefetch = Prefetch::off;
  Reading reader(Extents::uniform(kGiB), options);
  reader.read(0, 64 * kMiB);
  EXPECT_EQ(reader.fetched_bytes(), 64 * kMiB);
}

}  // namespace
}  // namespace cake
