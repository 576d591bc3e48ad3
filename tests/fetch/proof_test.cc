#include "fetch/proof.h"

#include <gtest/gtest.h>

#include <thread>

#include "store/evict.h"
#include "tests/support/content_fixture.h"
#include "tests/support/eventually.h"
#include "tests/support/fake_upstream.h"

namespace cake {
namespace {

// A client over a far end that has one file, whose listing gives its true hash.
class ProofTest : public ::testing::Test {
 protected:
  ProofTest() {
    auto far_end = std::make_unique<FakeUpstream>();
    upstream_ = far_end.get();
    const Buffer bytes = random_bytes(7, 3 * kMiB);
    content_ = true_content(fixture_.store(), "hf:fake", "w.bin", bytes);
    upstream_->serve("org/name", "main", content_.commit, {{"w.bin", std::string(as_text(bytes))}});
    client_ = std::make_unique<Client>(fixture_.store(), "hf:fake", std::move(far_end),
                                       ClientOptions(), fixture_.metrics());
  }

  void fetch() {
    must(fetch_range(*client_, content_.id, {0, content_.bytes}, {}));
    must(fixture_.chunks().flush());
  }
  ContentRow row() { return *must(fixture_.index().find_content(content_.id)); }
  static ProofOptions eager() {
    ProofOptions options;
    options.busy_interval = Millis(20);
    options.quiet_interval = Millis(20);
    return options;
  }

  TempDir dir_;
  StoreFixture fixture_{dir_.path()};
  FakeUpstream* upstream_ = nullptr;
  ContentRow content_;
  std::unique_ptr<Client> client_;
};

TEST_F(ProofTest, MarksWhatIsRight) {
  FileProof proof(*client_, fixture_.metrics(), eager(), [](RowId, const auto&) { FAIL(); });
  fetch();
  EXPECT_TRUE(eventually([&] { return row().verified; }));
  EXPECT_EQ(upstream_->counts().bytes, content_.bytes);
}

TEST_F(ProofTest, ReplacesWhatIsWrong) {
  upstream_->corrupt_next_read();
  fetch();
  std::atomic<RowId> rejected{0};
  FileProof proof(*client_, fixture_.metrics(), eager(), [&](RowId id, const auto&) {
    // Its rows are gone by now.
    EXPECT_EQ(must(fixture_.index().cached(id)).bytes, 0u);
    rejected = id;
  });
  EXPECT_TRUE(eventually([&] { return row().verified; }));
  EXPECT_EQ(rejected.load(), content_.id);
  EXPECT_EQ(must(fixture_.index().cached(content_.id)).bytes, content_.bytes);
}

// A hub whose hash never fits its bytes: asking for ever would help nobody.
TEST_F(ProofTest, GivesUpOnAHubThatLies) {
  Buffer other = random_bytes(8, 3 * kMiB);
  upstream_->serve("org/name", "main", content_.commit, {{"w.bin", std::string(as_text(other))}});
  std::atomic<unsigned> rejections{0};
  FileProof proof(*client_, fixture_.metrics(), eager(), [&](RowId, const auto&) { rejections++; });
  fetch();
  EXPECT_TRUE(eventually([&] { return rejections == 1 && row().mismatched; }));
  EXPECT_EQ(must(fixture_.index().cached(content_.id)).bytes, content_.bytes);
}

// Evicted files stay on the list of the unverified, which is looked at 64 at a time.
TEST_F(ProofTest, ReachesFilesBehindManyThatWereEvicted) {
  for (uint64_t i = 0; i < 70; i++) {
    const Buffer bytes = random_bytes(100 + i, 1000);
    const ContentRow content = true_content(fixture_.store(), "hf:fake", cat(i, ".bin"), bytes);
    store_bytes(fixture_, content, bytes);
  }
  must(fixture_.store().evictor().evict(kGiB));
  const Buffer bytes = random_bytes(9, kMiB);
  const ContentRow last = true_content(fixture_.store(), "hf:fake", "x.bin", bytes);
  store_bytes(fixture_, last, bytes);
  FileProof proof(*client_, fixture_.metrics(), eager(), [](RowId, const auto&) { FAIL(); });
  EXPECT_TRUE(eventually([&] { return must(fixture_.index().find_content(last.id))->verified; }));
}

TEST_F(ProofTest, LeavesTheWorkToTheProcessThatHasIt) {
  // Another open description of the claims, as another process has one.
  const Claims others = must(Claims::open(dir_.path() + "/claims"));
  constexpr uint64_t kProofRegion = (uint64_t{1} << 24) - 1;
  ASSERT_TRUE(must(others.try_claim(content_.id, kProofRegion)));
  fetch();
  FileProof proof(*client_, fixture_.metrics(), eager(), [](RowId, const auto&) { FAIL(); });
  const Counter& verified = fixture_.metrics().counter("fetch.files_verified");
  // Rounds are made: a second file is proved meanwhile.
  const Buffer bytes = random_bytes(9, kMiB);
  const ContentRow second = true_content(fixture_.store(), "hf:fake", "x.bin", bytes);
  store_bytes(fixture_, second, bytes);
  EXPECT_TRUE(eventually([&] { return verified.value() == 1; }));
  EXPECT_FALSE(row().verified);
  must(others.release(content_.id, kProofRegion));
  EXPECT_TRUE(eventually([&] { return row().verified; }));
}

}  // namespace
}  // namespace cake
