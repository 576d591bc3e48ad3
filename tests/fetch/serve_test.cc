#include "fetch/serve.h"

#include <gtest/gtest.h>

#include <csignal>
#include <future>
#include <thread>

#include "store/base/file.h"
#include "tests/support/http_ask.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

TEST(Serve, ServesAFolderUntilASignal) {
  const TempDir root, cache;
  ASSERT_TRUE(make_directories(root / "org/m"));
  ASSERT_TRUE(write_file_atomically(root / "org/m/a", as_bytes("hello")));
  std::promise<std::string> ready;
  Status ended = Error{Errc::io, "did not run"};
  std::thread server([&] {
    ended = run_serve(
        {.directory = root.path(), .listen = "127.0.0.1:0", .hash_cache_file = cache / "hashes"},
        [&](const std::string& url) { ready.set_value(url); });
  });
  const std::string url = ready.get_future().get();
  {
    Asker asker;
    // A branch's file is redirected to its commit's, which caches may keep.
    const auto branch = asker.get(url + "/org/m/resolve/main/a");
    EXPECT_TRUE(branch && branch->head.status == 307);
    const auto answer = asker.get(cat(url, branch ? branch->head.find("location") : ""));
    EXPECT_TRUE(answer && answer->body == "hello");
  }
  EXPECT_EQ(::pthread_kill(server.native_handle(), SIGTERM), 0);
  server.join();
  EXPECT_TRUE(ended);
}

TEST(Serve, SaysWhatIsWrong) {
  const TempDir root;
  const auto never = [](const std::string&) { ADD_FAILURE(); };
  const Status absent = run_serve({.directory = root / "nope"}, never);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Errc::not_found);
  const Status malformed = run_serve(
      {.directory = root.path(), .listen = "nowhere", .hash_cache_file = root / "h"}, never);
  ASSERT_FALSE(malformed);
  EXPECT_EQ(malformed.error().code, Errc::invalid);
}

}  // namespace
}  // namespace cake
