#include "tools/mounts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace cake {
namespace {

std::optional<MountRequest> parsed(const std::vector<std::string>& args) {
  std::ostringstream err;
  return parse_mount_helper(args, err);
}

Result<KeeperOptions> prepared(const std::string& source, std::vector<std::string> options,
                               bool ignores_unknown = false) {
  Config config;
  MountRequest request;
  request.source = source;
  request.directory = "/models";
  request.options = std::move(options);
  request.ignores_unknown = ignores_unknown;
  return prepare_mount(request, config);
}

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

TEST(MountHelper, TakesMountsOwnFlags) {
  const auto request = parsed({"hf:", "/models", "-s", "-f", "-n", "-v", "-w", "-o",
                               "ro,cache_size=200G", "-t", "cakefs", "-orefresh=60"});
  ASSERT_TRUE(request);
  EXPECT_EQ(request->source, "hf:");
  EXPECT_EQ(request->directory, "/models");
  EXPECT_TRUE(request->ignores_unknown);
  EXPECT_TRUE(request->is_dry_run);
  EXPECT_EQ(request->options, (std::vector<std::string>{"ro", "cache_size=200G", "refresh=60"}));
}

TEST(MountHelper, RefusesWrongWords) {
  EXPECT_FALSE(parsed({}));
  EXPECT_FALSE(parsed({"hf:"}));
  EXPECT_FALSE(parsed({"hf:", "/models", "more"}));
  EXPECT_FALSE(parsed({"hf:", "/models", "-o"}));
  EXPECT_FALSE(parsed({"hf:", "/models", "-x"}));
}

TEST(Mounts, GenericOptionsPass) {
  const auto keeper = prepared("hf:", {"rw", "nosuid", "nodev", "noexec", "noatime", "_netdev",
                                       "nofail", "user", "x-systemd.automount"});
  ASSERT_TRUE(keeper) << keeper.error().message;
  EXPECT_TRUE(keeper->mount.is_noexec);
}

TEST(Mounts, OptionsReachTheWorkerAsSettings) {
  const auto keeper = prepared("hf:org/name@v1", {"soft", "mem_cache=1G", "allow_other"});
  ASSERT_TRUE(keeper) << keeper.error().message;
  EXPECT_EQ(keeper->arguments.front(), "hf:org/name@v1");
  EXPECT_TRUE(has(keeper->arguments, "hard=no"));
  EXPECT_TRUE(has(keeper->arguments, "mem_cache=1G"));
  EXPECT_TRUE(has(keeper->arguments, "rev=v1"));
  EXPECT_TRUE(keeper->mount.allow_other);
}

TEST(Mounts, UnknownOptionIsAnErrorUnlessSloppy) {
  const auto keeper = prepared("hf:", {"cache_sise=1G"});
  ASSERT_FALSE(keeper);
  EXPECT_NE(keeper.error().message.find("did you mean 'cache_size'?"), std::string::npos);
  EXPECT_TRUE(prepared("hf:", {"frobnicate=1"}, true));
  // A known option with a wrong value is wrong either way.
  EXPECT_FALSE(prepared("hf:", {"cache_size=lots"}, true));
}

// Ignored, it would show what the user wanted hidden.
TEST(Mounts, SubdirIsAPathInARepo) {
  for (const char* option : {"subdir=../x", "subdir=/x", "subdir=a//b"})
    EXPECT_FALSE(prepared("hf:", {option})) << option;
  EXPECT_TRUE(prepared("hf:", {"subdir=a/b/", "include=*.json", "exclude=*.bin"}));
  EXPECT_FALSE(prepared("hf:org/name/a", {"subdir=b"}));
}

TEST(Mounts, SecretsAreNoOptions) {
  EXPECT_FALSE(prepared("hf:", {"token=hf_x"}));
  EXPECT_FALSE(prepared("hf:", {"proxy=http://a:b@proxy"}));
}

TEST(Mounts, RelativePathsBecomeAbsolute) {
  const auto keeper = prepared("hf:", {"store=here"});
  ASSERT_TRUE(keeper);
  EXPECT_TRUE(keeper->mount.store.starts_with("/"));
  EXPECT_TRUE(keeper->mount.store.ends_with("/here"));
}

TEST(Mounts, SourceAndOptionsMustAgree) {
  EXPECT_FALSE(prepared("hf:org/name@v1", {"rev=v2"}));
  EXPECT_TRUE(prepared("hf:org/name@v1", {"rev=v1"}));
  EXPECT_FALSE(prepared("/dev/sda1", {}));
  EXPECT_FALSE(prepared("", {}));
}

}  // namespace
}  // namespace cake
