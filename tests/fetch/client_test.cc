// Client, FileReader and Fetcher together: names and bytes over a real store and a scripted far
// end.
#include "fetch/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "store/base/log_listener.h"
#include "tests/support/eventually.h"
#include "tests/support/fake_upstream.h"
#include "tests/support/names.h"
#include "tests/support/pattern.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

constexpr char kCommit2[] = "1123456789012345678901234567890123456789";

std::string safetensors(const std::string& padding, const std::string& a, const std::string& b) {
  std::string header = cat(R"({"a":{"dtype":"U8","shape":[)", a.size(), R"(],"data_offsets":[0,)",
                           a.size(), R"(]},"b":{"dtype":"U8","shape":[)", b.size(),
                           R"(],"data_offsets":[)", a.size(), ",", a.size() + b.size(), "]}}");
  header += padding;
  std::string file(8, '\0');
  store_le<uint64_t>(reinterpret_cast<std::byte*>(file.data()), header.size());
  return file + header + a + b;
}

// A process's worth of client over a store directory.
struct Host {
  explicit Host(const std::string& directory, bool is_online = true, bool is_hard = true) {
    StoreOptions store_options;
    store_options.directory = directory;
    store_options.codec = CodecChoice::raw;
    auto opened = Store::open(store_options, metrics);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    store = std::move(*opened);
    ClientOptions options;
    options.fetch.is_hard = is_hard;
    options.fetch.retrans = 2;
    options.fetch.max_transfers = 2;  // so that their ranges have several extents
    options.fetch.timeo = Millis(2000);
    auto far_end = is_online ? std::make_unique<FakeUpstream>() : nullptr;
    upstream = far_end.get();
    client = std::make_unique<Client>(*store, "hf:fake", std::move(far_end), options, metrics);
  }
  ~Host() {
    client.reset();
    store.reset();
  }

  Result<Client::SnapshotPtr> find(const std::string& revision = "main", bool ask_hub = false) {
    return wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
      client->find_snapshot(kRepo, revision, ask_hub, Deadline::after(Millis(5000)), done);
    });
  }
  std::shared_ptr<FileReader> open(const std::string& path) {
    const auto snapshot = find();
    EXPECT_TRUE(snapshot) << (snapshot ? "" : snapshot.error().message);
    const auto entry = (*snapshot)->find_entry(path);
    EXPECT_TRUE(entry);
    auto reader = client->open((*snapshot)->content_id(*entry));
    EXPECT_TRUE(reader);
    return *reader;
  }
  Result<std::string> read(const std::string& path, uint64_t offset, uint64_t length,
                           ReadOptions options = {}) {
    const auto reader = open(path);
    const auto slices = wait_for<FileReader::Slices>(
        [&](Done<FileReader::Slices> done) { reader->read(offset, length, options, done); });
    if (!slices) return slices.error();
    std::string text;
    for (const ChunkSlice& slice : *slices) text += as_text(slice.bytes());
    return text;
  }

  Metrics metrics;
  std::unique_ptr<Store> store;
  FakeUpstream* upstream = nullptr;
  std::unique_ptr<Client> client;
};

TEST(Client, ReadsAnyRangeAndFetchesEachByteOnce) {
  const TempDir directory;
  const std::string bytes = random_text(5 * kMiB + 17, 1);
  {
    Host host(directory.path());
    host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
    EXPECT_EQ(host.read("w.bin", 2 * kMiB - 5, 20).value(), bytes.substr(2 * kMiB - 5, 20));
    EXPECT_EQ(host.upstream->counts().bytes, 2 * kMiB) << "a lone touch fetches what it touches";
    EXPECT_EQ(host.read("w.bin", 0, bytes.size() + 100).value(), bytes);
    EXPECT_EQ(host.upstream->counts().bytes, bytes.size());
    EXPECT_EQ(host.read("w.bin", bytes.size(), 10).value(), "");
  }
  // Another process, without a network, reads what is there.
  Host offline(directory.path(), false);
  EXPECT_EQ(offline.read("w.bin", 0, bytes.size()).value(), bytes);
}

TEST(Client, CutsSafetensorsAtTensorsAndSharesThemAcrossHeaders) {
  const TempDir directory;
  const std::string a = random_text(3 * kMiB + 5, 2), b = random_text(kMiB, 3);
  const std::string one = safetensors("", a, b), two = safetensors("      ", a, b);
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit,
                       {{"one.safetensors", one}, {"two.safetensors", two}});
  EXPECT_EQ(host.read("one.safetensors", 0, one.size()).value(), one);
  ASSERT_TRUE(host.store->chunks().flush());
  const Usage before = host.store->index().usage().value();
  EXPECT_EQ(host.read("two.safetensors", 0, two.size()).value(), two);
  ASSERT_TRUE(host.store->chunks().flush());
  const Usage after = host.store->index().usage().value();
  EXPECT_EQ(after.logical_bytes, one.size() + two.size());
  // Only the other header is new.
  EXPECT_LT(after.plain_bytes - before.plain_bytes, 1000u);
  EXPECT_EQ(host.open("one.safetensors")->cutter_name(), "safetensors");
}

TEST(Client, ServesABrokenSafetensorsAsOpaqueBytes) {
  const TempDir directory;
  const std::string bytes = "\xff\xff\xff\xff\xff\xff\xff\xff{not a header}";
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"x.safetensors", bytes}});
  EXPECT_EQ(host.read("x.safetensors", 0, 100).value(), bytes);
  EXPECT_EQ(host.open("x.safetensors")->cutter_name(), "uniform");
}

TEST(Client, ReadsAZeroLengthFileWithoutAsking) {
  const TempDir directory;
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"empty.safetensors", ""}});
  EXPECT_EQ(host.read("empty.safetensors", 0, 10).value(), "");
  EXPECT_EQ(host.upstream->counts().reads, 0u);
}

TEST(Client, KeepsWhatArrivedBeforeACut) {
  const TempDir directory;
  const std::string bytes = random_text(4 * kMiB, 4);
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  host.upstream->fail_next_reads({{{Errc::upstream, "cut"}, kMiB + 100}});
  EXPECT_EQ(host.read("w.bin", 0, bytes.size()).value(), bytes);
  // The extent that was cut is fetched again, the one before it is not.
  EXPECT_EQ(host.upstream->counts().bytes, bytes.size() + 100);
}

TEST(Client, AHardReaderOutlivesTheWeather) {
  const TempDir directory;
  const std::string bytes = random_text(kMiB, 5);
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  host.upstream->fail_next_reads({{{Errc::timeout, "stalled"}, 0},
                                  {{Errc::offline, "refused"}, 0},
                                  {{Errc::upstream, "503"}, 10},
                                  {{Errc::rate_limited, "429"}, 0}});
  EXPECT_EQ(host.read("w.bin", 0, bytes.size()).value(), bytes);
}

TEST(Client, ASoftReaderGetsTheErrorAndRemembersIt) {
  const TempDir directory;
  Host host(directory.path(), true, false);
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", random_text(kMiB, 6)}});
  ASSERT_TRUE(host.find());
  host.upstream->set_down(Error{Errc::offline, "no route"});
  const auto failed = host.read("w.bin", 0, 10);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::offline);
  EXPECT_NE(failed.error().message.find("w.bin"), std::string::npos);
  const unsigned reads = host.upstream->counts().reads;
  EXPECT_FALSE(host.read("w.bin", 0, 10));
  EXPECT_EQ(host.upstream->counts().reads, reads) << "asked the network again at once";
}

TEST(Client, DeniedIsNotRetried) {
  const TempDir directory;
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", random_text(kMiB, 6)}});
  host.upstream->fail_next_reads({{{Errc::denied, "gated"}, 0}});
  const auto failed = host.read("w.bin", 0, 10);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::denied);
  EXPECT_EQ(host.upstream->counts().reads, 1u);
}

// Plain files of a gated repo are often byte for byte those of open ones.
TEST(Client, WhatOneRepoRefusesIsReadFromAnother) {
  const TempDir directory;
  Host host(directory.path());
  const std::string bytes = random_text(3 * kMiB, 7), other = random_text(kMiB, 8);
  for (const char* repo : {"org/name", "org/gated"})
    host.upstream->serve(repo, "main", repo == std::string("org/name") ? kCommit : kCommit2,
                         {{"w.bin", bytes}, {"model.safetensors", other}});
  ASSERT_TRUE(host.find());
  ASSERT_TRUE(wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
    host.client->find_snapshot({RepoType::model, "org/gated"}, "main", false, Deadline::never(),
                               done);
  }));
  host.upstream->refuse("org/gated", {Errc::denied, "gated"});
  EXPECT_EQ(host.read("w.bin", 0, bytes.size()).value(), bytes);
  host.upstream->refuse("org/name", {Errc::not_found, "deleted"});
  EXPECT_FALSE(host.read("model.safetensors", 0, 10));
  EXPECT_LE(host.upstream->counts().reads, 10u);
}

// A client that asks the hub for the revision at every look, and waits for ever.
struct Refreshing {
  explicit Refreshing(const std::string& directory) : fixture(directory) {
    auto far_end = std::make_unique<FakeUpstream>();
    upstream = far_end.get();
    upstream->serve("org/name", "main", kCommit, {{"a", "1"}});
    ClientOptions options;
    options.refresh_s = 0;
    client = std::make_unique<Client>(fixture.store(), "hf:fake", std::move(far_end), options,
                                      fixture.metrics());
  }
  Client::SnapshotPtr find(bool ask_hub = false) {
    return must(wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
      client->find_snapshot(kRepo, "main", ask_hub, Deadline::never(), done);
    }));
  }

  StoreFixture fixture;
  FakeUpstream* upstream = nullptr;
  std::unique_ptr<Client> client;
};

TEST(Client, AKnownNameDoesNotWaitForASilentHub) {
  const TempDir directory;
  Refreshing host(directory.path());
  EXPECT_EQ(host.find()->commit(), kCommit);
  host.upstream->serve("org/name", "main", kCommit2, {{"a", "2"}});
  host.upstream->hold();
  EXPECT_EQ(host.find()->commit(), kCommit);
  // The question goes on behind, and its answer counts.
  host.upstream->resume();
  EXPECT_EQ(host.find()->commit(), kCommit2);
}

// Commits of the repo that refuses are seen last and are many.
TEST(Client, AnotherRepoIsFoundBehindManyCommitsOfTheOneThatRefuses) {
  const TempDir directory;
  Host host(directory.path());
  const std::string bytes = random_text(kMiB, 7);
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  ASSERT_TRUE(host.find());
  for (char number = '0'; number <= '9'; number++) {
    const std::string commit = std::string(39, 'a') + number;
    host.upstream->serve("org/gated", "main", commit, {{"w.bin", bytes}});
    ASSERT_TRUE(wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
      host.client->find_snapshot({RepoType::model, "org/gated"}, commit, false, Deadline::never(),
                                 done);
    }));
  }
  host.upstream->refuse("org/gated", {Errc::denied, "gated"});
  EXPECT_EQ(host.read("w.bin", 0, bytes.size()).value(), bytes);
  EXPECT_LE(host.upstream->counts().reads, 4u);
}

TEST(Client, ANameIsAnsweredAtItsDeadlineWhileTheLookUpGoesOn) {
  const TempDir directory;
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"a", "1"}});
  host.upstream->hold();
  const auto early = wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
    host.client->find_snapshot(kRepo, "main", false, Deadline::after(Millis(20)), done);
  });
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, Errc::timeout);
  host.upstream->resume();
  EXPECT_TRUE(
      eventually([&] { return must(host.client->find_known_snapshot(kRepo, "main")) != nullptr; }));
  EXPECT_EQ(host.upstream->counts().resolves, 1u);
}

TEST(Client, AHubThatStaysDownIsOneLineARepo) {
  const TempDir directory;
  Refreshing host(directory.path());
  host.find(true);
  const auto lines = std::make_shared<std::atomic<unsigned>>(0);  // the listener stays
  set_log_listener([lines](LogLevel, std::string_view text) {
    if (text.find("not looked up again") != std::string_view::npos) (*lines)++;
  });
  host.upstream->set_down(Error{Errc::offline, "no route"});
  for (int i = 0; i < 20; i++) EXPECT_EQ(host.find(i % 2 == 0)->commit(), kCommit);
  host.client->stop();
  EXPECT_EQ(lines->load(), 1u);
}

// The timer of the next attempt is dropped: of an extent, and of a head.
TEST(Client, AReaderHearsOfTheEndBetweenTwoAttempts) {
  const TempDir directory;
  Host host(directory.path());
  const std::string bytes = random_text(kMiB, 7);
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}, {"m.safetensors", bytes}});
  std::atomic<unsigned> heard{0};
  {
    const auto extents = host.open("w.bin"), head = host.open("m.safetensors");
    host.upstream->set_down(Error{Errc::offline, "no route"});
    for (const auto& reader : {extents, head})
      reader->read(0, 10, {}, [&](const Result<FileReader::Slices>& slices) {
        EXPECT_FALSE(slices);
        heard++;
      });
    EXPECT_TRUE(eventually([&] { return host.upstream->counts().reads >= 4; }));
  }
  host.client.reset();
  EXPECT_EQ(heard.load(), 2u);
}

// The kernel asks again for the one page it needs; a read of absent bytes alone waits.
TEST(Client, AMixedPageCacheReadFailsAtOnceWhileTheHubIsDown) {
  const TempDir directory;
  const std::string bytes = random_text(2 * kMiB, 7);
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  EXPECT_EQ(host.read("w.bin", 0, 10).value(), bytes.substr(0, 10));
  host.client->health().failed(Errc::offline);
  ReadOptions page_cache;
  page_cache.may_ask_for_less = true;
  const auto mixed = host.read("w.bin", kMiB - 4096, 8192, page_cache);
  ASSERT_FALSE(mixed);
  EXPECT_EQ(mixed.error().code, Errc::offline);
  EXPECT_EQ(host.read("w.bin", kMiB - 4096, 4096, page_cache).value(),
            bytes.substr(kMiB - 4096, 4096));
}

TEST(Client, ManyReadersOfOneExtentAreOneRequest) {
  const TempDir directory;
  const std::string bytes = random_text(kMiB, 8);
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  const auto reader = host.open("w.bin");
  host.upstream->hold();
  std::atomic<int> right{0};
  std::mutex mutex;
  std::condition_variable all;
  for (int i = 0; i < 300; i++)
    reader->read(0, kMiB, {}, [&](const Result<FileReader::Slices>& slices) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (slices && as_text(slices->front().bytes()) == bytes) right++;
      all.notify_one();
    });
  host.upstream->resume();
  std::unique_lock<std::mutex> lock(mutex);
  EXPECT_TRUE(all.wait_for(lock, std::chrono::seconds(10), [&] { return right == 300; }));
  EXPECT_EQ(host.upstream->counts().reads, 1u);
}

// A hub that changes a file under a commit: the digest that stayed after eviction is proof.
TEST(Client, RefusesBytesThatDifferFromThoseKnown) {
  const TempDir directory;
  const std::string bytes = random_text(kMiB, 9);
  Host host(directory.path());
  host.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  const auto reader = host.open("w.bin");
  ASSERT_TRUE(host.read("w.bin", 0, kMiB));
  ASSERT_TRUE(host.store->chunks().flush());
  const RowId content = reader->content().id;
  const Digest digest = blake3(as_bytes(bytes));
  const auto where = host.store->index().find_chunks({&digest, 1}).value().front();
  ASSERT_TRUE(where);
  ASSERT_TRUE(host.store->index().drop_chunk(digest, *where));

  Metrics metrics;
  auto upstream = std::make_unique<FakeUpstream>();
  FakeUpstream* const far_end = upstream.get();
  far_end->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  Client second(*host.store, "hf:fake", std::move(upstream), ClientOptions{}, metrics);
  far_end->corrupt_next_read();
  const auto again = second.open(content).value();
  const auto slices = wait_for<FileReader::Slices>(
      [&](Done<FileReader::Slices> done) { again->read(0, kMiB, {}, done); });
  ASSERT_TRUE(slices) << slices.error().message;
  EXPECT_EQ(as_text(slices->front().bytes()), bytes) << "the second, right answer is served";
  EXPECT_EQ(far_end->counts().reads, 2u);
}

TEST(Client, NamesAreAnsweredFromTheStoreOnceKnown) {
  const TempDir directory;
  {
    Host host(directory.path());
    host.upstream->serve("org/name", "main", kCommit, {{"a", "1"}});
    EXPECT_EQ(host.find().value()->commit(), kCommit);
    EXPECT_EQ(host.find().value()->commit(), kCommit);
    EXPECT_EQ(host.upstream->counts().resolves, 1u);
    EXPECT_EQ(host.upstream->counts().trees, 1u);
    // A moved branch is seen when the hub is asked, not before.
    host.upstream->serve("org/name", "main", kCommit2, {{"a", "2"}});
    EXPECT_EQ(host.find().value()->commit(), kCommit);
    EXPECT_EQ(host.find("main", true).value()->commit(), kCommit2);
  }
  Host offline(directory.path(), false);
  EXPECT_EQ(offline.find().value()->commit(), kCommit2);
  EXPECT_EQ(offline.find(kCommit).value()->commit(), kCommit);
  const auto absent = offline.find("v9");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Errc::offline);
}

TEST(Client, AnAbsentNameIsRememberedAndAFaultIsNot) {
  const TempDir directory;
  Host host(directory.path());
  const auto absent = host.find("v9");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Errc::not_found);
  EXPECT_FALSE(host.find("v9"));
  EXPECT_EQ(host.upstream->counts().resolves, 1u);
  host.upstream->set_down(Error{Errc::timeout, "no answer"});
  EXPECT_EQ(host.find("v8").error().code, Errc::timeout);
  host.upstream->set_down(std::nullopt);
  host.upstream->serve("org/name", "v8", kCommit, {{"a", "1"}});
  EXPECT_TRUE(host.find("v8"));
}

TEST(Client, ImpossibleNamesCauseNoRequest) {
  const TempDir directory;
  Host host(directory.path());
  for (const char* id : {".git/x", "a--b/c", "org/.hidden", "org/na me"}) {
    const auto answer = wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
      host.client->find_snapshot({RepoType::model, id}, "main", false, Deadline::never(), done);
    });
    ASSERT_FALSE(answer) << id;
    EXPECT_EQ(answer.error().code, Errc::not_found);
  }
  EXPECT_EQ(host.upstream->counts().resolves, 0u);
}

TEST(Client, ListsAnAuthorFromTheHubAndOfflineFromTheStore) {
  const TempDir directory;
  const auto list = [](Host& host, const std::string& author) {
    return wait_for<std::vector<std::string>>([&](Done<std::vector<std::string>> done) {
      host.client->list_author(RepoType::model, author, Deadline::after(Millis(5000)), done);
    });
  };
  {
    Host host(directory.path());
    host.upstream->serve("org/name", "main", kCommit, {{"a", "1"}});
    host.upstream->serve("org/other", "main", kCommit, {{"a", "1"}});
    EXPECT_EQ(list(host, "org").value(), (std::vector<std::string>{"org/name", "org/other"}));
    EXPECT_EQ(list(host, "org").value().size(), 2u);
    EXPECT_EQ(host.upstream->counts().authors, 1u);
    EXPECT_EQ(list(host, "nobody").error().code, Errc::not_found);
    EXPECT_EQ(list(host, "nobody").error().code, Errc::not_found);
    EXPECT_EQ(host.upstream->counts().authors, 2u) << "the absent author was asked for again";
    // Whether there is one is not asked for while anything is known of them.
    const auto exists = [&](const std::string& author) {
      return wait_for<std::monostate>([&](Done<std::monostate> done) {
        host.client->find_author(RepoType::model, author, Deadline::never(), done);
      });
    };
    EXPECT_TRUE(exists("org"));
    EXPECT_EQ(exists("nobody").error().code, Errc::not_found);
    EXPECT_EQ(host.upstream->counts().authors, 2u);
    for (const Errc unclear : {Errc::unsupported, Errc::denied, Errc::upstream}) {
      host.upstream->set_down(Error{unclear, "no list"});
      EXPECT_TRUE(exists("shy"));
    }
    host.upstream->set_down(Error{Errc::offline, "no route"});
    EXPECT_EQ(exists("shy").error().code, Errc::offline);
  }
  Host offline(directory.path(), false);
  EXPECT_EQ(list(offline, "org").value().size(), 2u);
  EXPECT_EQ(list(offline, "strange").error().code, Errc::offline);
}

// Two mounts of one host, one store: the second waits for the first one's rows.
TEST(Client, TwoProcessesOfAStoreFetchOnce) {
  const TempDir directory;
  const std::string bytes = random_text(8 * kMiB, 10);
  Host first(directory.path()), second(directory.path());
  first.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  second.upstream->serve("org/name", "main", kCommit, {{"w.bin", bytes}});
  std::thread other([&] { EXPECT_EQ(second.read("w.bin", 0, bytes.size()).value(), bytes); });
  EXPECT_EQ(first.read("w.bin", 0, bytes.size()).value(), bytes);
  other.join();
  EXPECT_EQ(first.upstream->counts().bytes + second.upstream->counts().bytes, bytes.size());
}

}  // namespace
}  // namespace cake
