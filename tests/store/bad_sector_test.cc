// Sectors that the disk cannot read: pread gives EIO for the bytes of one file.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "store/check.h"
#include "store/verify.h"
#include "tests/support/content_fixture.h"
#include "tests/support/names.h"

namespace {

// Of every pack; 0: none.
std::atomic<uint64_t> bad_offset{0};

bool is_bad(int fd, size_t bytes, off_t offset) {
  const uint64_t bad = bad_offset;
  const auto first = static_cast<uint64_t>(offset);
  if (bad < first || bad - first >= bytes || bad == 0) return false;
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(link.c_str(), path, sizeof path);
  return length > 0 && std::string_view(path, static_cast<size_t>(length)).ends_with(".pack");
}

ssize_t read_unless_bad(int fd, void* out, size_t bytes, off_t offset) {
  if (!is_bad(fd, bytes, offset)) return ::syscall(SYS_pread64, fd, out, bytes, offset);
  errno = EIO;
  return -1;
}

}  // namespace

extern "C" {
ssize_t pread(int fd, void* out, size_t bytes, off_t offset) {
  return read_unless_bad(fd, out, bytes, offset);
}
ssize_t pread64(int fd, void* out, size_t bytes, off_t offset) {
  return read_unless_bad(fd, out, bytes, offset);
}
}

namespace cake {
namespace {

class BadSectorTest : public testing::Test {
 protected:
  BadSectorTest() {
    content_ = true_content(fixture_.store(), kSource, "w.bin", bytes_);
    store_bytes(fixture_, content_, bytes_);
  }
  ~BadSectorTest() override { bad_offset = 0; }

  ByteSpan chunk(uint64_t ordinal) const { return ByteSpan(bytes_).subspan(ordinal * kMiB, kMiB); }
  std::optional<Location> location(uint64_t ordinal) {
    const Digest digest = blake3(chunk(ordinal));
    return must(fixture_.index().find_chunks({&digest, 1}))[0];
  }
  // The chunk comes again, as by a reader that missed it, and is good then.
  void heal(uint64_t ordinal) {
    fixture_.put(content_.id, ordinal, chunk(ordinal));
    must(fixture_.chunks().flush());
    EXPECT_EQ(must(check_content(fixture_.store(), content_, {})).state,
              ContentCheck::State::verified);
  }

  const Buffer bytes_ = random_bytes(9, 4 * kMiB);
  TempDir dir_;
  StoreFixture fixture_{dir_.path()};
  ContentRow content_;
};

TEST_F(BadSectorTest, InAChunkIsAWrongChunk) {
  bad_offset = location(1)->offset + 5'000;
  const auto read = fixture_.chunks().read(*location(1));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::corrupt);
  const ContentCheck found = must(check_content(fixture_.store(), content_, {}));
  EXPECT_EQ(found.damaged, (std::vector<ByteRange>{{kMiB, kMiB}}));
  EXPECT_FALSE(location(1));
  heal(1);
}

TEST_F(BadSectorTest, DoesNotEndTheCheck) {
  for (const uint64_t before_payload : {uint64_t{0}, uint64_t{64}}) {  // in the bytes; the header
    SCOPED_TRACE(before_payload);
    bad_offset = location(2)->offset - before_payload;
    CheckOptions options;
    options.repairs = true;
    const CheckReport report = must(check_store(fixture_.store(), options));
    EXPECT_EQ(report.problems[0].kind, CheckProblem::Kind::chunk_damaged);
    EXPECT_EQ(report.repaired_count, 1u);
    EXPECT_FALSE(location(2));
    EXPECT_TRUE(location(3));
    heal(2);
  }
}

}  // namespace
}  // namespace cake
