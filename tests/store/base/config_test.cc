#include "store/base/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>

#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = testing::TempDir() + "/configXXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~ConfigTest() override { std::filesystem::remove_all(directory_); }

  std::string write(const std::string& name, std::string_view text) {
    const std::string path = directory_ + "/" + name;
    EXPECT_TRUE(write_file_atomically(path, as_bytes(text)));
    return path;
  }

  ConfigSources sources() {
    return {directory_ + "/system", directory_ + "/user",
            [this](const std::string& name) -> std::optional<std::string> {
              const auto found = variables_.find(name);
              if (found == variables_.end()) return std::nullopt;
              return found->second;
            }};
  }

  std::string directory_;
  std::map<std::string, std::string> variables_;
};

TEST_F(ConfigTest, DefaultsNameThemselves) {
  const Result<Config> config = Config::load(sources());
  ASSERT_TRUE(config);
  EXPECT_EQ(config->get("cache_size").text, "80%");
  EXPECT_EQ(config->get("cache_size").origin, "default");
  EXPECT_FALSE(config->is_set("cache_size"));
}

TEST_F(ConfigTest, EachLayerCoversTheOneBelow) {
  write("system", "# comment\n\n  mem_cache = 1M \nreadahead=2M\nmax_conns = 3\ntimeo=4\n");
  write("user", "readahead = 20M\nmax_conns=30\ntimeo=40\n");
  variables_ = {{"CAKE_MAX_CONNS", "300"}, {"CAKE_TIMEO", "400"}};
  Result<Config> config = Config::load(sources());
  ASSERT_TRUE(config);
  ASSERT_TRUE(config->set_option("timeo=4000", "-o"));
  EXPECT_EQ(config->get("mem_cache").origin, directory_ + "/system:3");
  EXPECT_EQ(config->size("mem_cache"), kMiB);
  EXPECT_EQ(config->get("readahead").origin, directory_ + "/user:1");
  EXPECT_EQ(config->size("readahead"), 20 * kMiB);
  EXPECT_EQ(config->get("max_conns").origin, "CAKE_MAX_CONNS");
  EXPECT_EQ(config->count("max_conns"), 300u);
  EXPECT_EQ(config->get("timeo").origin, "-o");
  EXPECT_EQ(config->seconds("timeo"), 4000u);
}

TEST_F(ConfigTest, UnknownKeyInFileNamesPlaceAndNearestKey) {
  write("system", "\ncache_sise = 5G\n");
  const Result<Config> config = Config::load(sources());
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, Errc::invalid);
  EXPECT_NE(config.error().message.find("/system:2: "), std::string::npos);
  EXPECT_NE(config.error().message.find("did you mean 'cache_size'?"), std::string::npos);
}

TEST_F(ConfigTest, LineWithoutEqualsIsAnError) {
  write("system", "cache_size 5G\n");
  EXPECT_FALSE(Config::load(sources()));
}

TEST_F(ConfigTest, OwnVariableCoversTheSharedOne) {
  variables_ = {{"HF_ENDPOINT", "https://a.example/"}};
  EXPECT_EQ(Config::load(sources())->get("endpoint").text, "https://a.example");
  EXPECT_EQ(Config::load(sources())->get("endpoint").origin, "HF_ENDPOINT");
  variables_["CAKE_ENDPOINT"] = "https://b.example";
  EXPECT_EQ(Config::load(sources())->get("endpoint").text, "https://b.example");
}

TEST_F(ConfigTest, HubOfflineVariableOnlySwitchesOn) {
  for (const char* on : {"1", "ON", "yes", "True"}) {
    variables_ = {{"HF_HUB_OFFLINE", on}};
    EXPECT_EQ(Config::load(sources())->get("offline").text, "yes") << on;
  }
  variables_ = {{"HF_HUB_OFFLINE", "0"}};
  EXPECT_EQ(Config::load(sources())->get("offline").text, "auto");
}

TEST(Config, TokenIsNeverAnOption) {
  Config config;
  const Status status = config.set_option("token=hf_secret", "-o");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::invalid);
  EXPECT_EQ(status.error().message.find("hf_secret"), std::string::npos);
  EXPECT_NE(status.error().message.find("token_file"), std::string::npos);
}

TEST(Config, PasswordInAddressIsRefusedAndNotRepeated) {
  for (const char* option :
       {"proxy=http://user:secret@proxy:3128", "endpoint=https://secret@hub.example/x",
        "proxy=user:secret@proxy:3128", "proxy=ftp://user:secret@proxy"}) {
    Config config;
    const Status status = config.set_option(option, "-o");
    ASSERT_FALSE(status) << option;
    EXPECT_EQ(status.error().code, Errc::invalid);
    EXPECT_EQ(status.error().message.find("secret"), std::string::npos) << status.error().message;
  }
  // An @ behind the host is a path's, not a user's.
  EXPECT_TRUE(Config().set_option("endpoint=https://hub.example/@team", "-o"));
}

TEST(Config, ChecksValuesByType) {
  const auto accepts = [](const char* option) { return Config().set_option(option, "-o").ok(); };
  EXPECT_TRUE(accepts("cache_size=200G"));
  EXPECT_TRUE(accepts("cache_size=80%"));
  EXPECT_FALSE(accepts("cache_size=101%"));
  EXPECT_FALSE(accepts("cache_size=-1"));
  EXPECT_FALSE(accepts("mem_cache=80%"));
  EXPECT_TRUE(accepts("refresh=never"));
  EXPECT_TRUE(accepts("refresh=15m"));
  EXPECT_FALSE(accepts("refresh=always"));
  EXPECT_FALSE(accepts("timeo=unlimited"));
  EXPECT_TRUE(accepts("attr_ttl=unlimited"));
  EXPECT_TRUE(accepts("codec=zstd"));
  EXPECT_FALSE(accepts("codec=lzma"));
  EXPECT_TRUE(accepts("fmode=0440"));
  EXPECT_FALSE(accepts("fmode=999"));
  EXPECT_FALSE(accepts("fmode=04755"));
  EXPECT_FALSE(accepts("max_conns=5000000000"));
  EXPECT_FALSE(accepts("max_conns"));
  EXPECT_FALSE(accepts("=1"));
  EXPECT_FALSE(accepts("log=a\nb"));
  EXPECT_FALSE(accepts("endpoint=huggingface.co"));
}

TEST(Config, BareFlagsAndTheirOpposites) {
  Config config;
  EXPECT_TRUE(config.boolean("hard"));
  ASSERT_TRUE(config.set_option("soft", "-o"));
  EXPECT_FALSE(config.boolean("hard"));
  ASSERT_TRUE(config.set_option("hard", "-o"));
  EXPECT_TRUE(config.boolean("hard"));
  ASSERT_TRUE(config.set_option("allow_other", "-o"));
  EXPECT_TRUE(config.boolean("allow_other"));
}

TEST(Config, GlobsOfOneLayerAddUp) {
  Config config;
  ASSERT_TRUE(config.set("include", "*.json", "/etc/cakefs.conf:1"));
  ASSERT_TRUE(config.set("include", "*.txt", "/etc/cakefs.conf:2"));
  EXPECT_EQ(config.globs("include"), (std::vector<std::string>{"*.json", "*.txt"}));
  ASSERT_TRUE(config.set_option("include=a*;b*", "-o"));
  ASSERT_TRUE(config.set_option("include=c*", "-o"));
  EXPECT_EQ(config.globs("include"), (std::vector<std::string>{"a*", "b*", "c*"}));
}

TEST(Config, SplitsOptionsAtUnescapedCommas) {
  EXPECT_EQ(Config::split_options("a,b=1,,c=x\\,y,d=\\\\"),
            (std::vector<std::string>{"a", "b=1", "c=x,y", "d=\\"}));
  EXPECT_TRUE(Config::split_options("").empty());
}

TEST(Config, ExplicitOptionsRecreateTheValues) {
  Config config;
  ASSERT_TRUE(config.set_option("soft", "-o"));
  ASSERT_TRUE(config.set_option("refresh=2m", "-o"));
  ASSERT_TRUE(config.set_option("include=a*;b*", "-o"));
  EXPECT_EQ(config.explicit_options(),
            (std::vector<std::string>{"refresh=120", "include=a*;b*", "hard=no"}));
  Config again;
  for (const std::string& option : config.explicit_options())
    ASSERT_TRUE(again.set_option(option, "keeper"));
  EXPECT_EQ(again.explicit_options(), config.explicit_options());
}

TEST(Config, PercentOfLargeDisksDoesNotOverflow) {
  EXPECT_EQ((PercentSize{true, 80}.bytes_of(1000)), 800u);
  EXPECT_EQ((PercentSize{true, 100}.bytes_of(UINT64_MAX)), UINT64_MAX);
  EXPECT_EQ((PercentSize{false, 5}.bytes_of(1000)), 5u);
}

TEST(Settings, DefaultsAreValidValuesOfTheirTypes) {
  for (const Setting& setting : all_settings()) {
    if (setting.fallback.empty()) continue;
    const Result<std::string> checked = check_setting(setting, setting.fallback);
    ASSERT_TRUE(checked) << setting.key << ": " << checked.error().message;
    EXPECT_EQ(*checked, setting.fallback);
  }
}

TEST(Settings, NearestWordNeedsToBeNear) {
  const std::vector<std::string_view> known = {"mount", "umount", "pull"};
  EXPECT_EQ(nearest_word("mout", known), "mount");
  EXPECT_EQ(nearest_word("muont", known), "mount");  // a transposition is one edit
  EXPECT_EQ(nearest_word("frobnicate", known), std::nullopt);
  EXPECT_EQ(nearest_word(std::string(100'000, 'x'), known), std::nullopt);
}

TEST(Settings, SecondsHaveUnits) {
  EXPECT_EQ(parse_seconds("90"), 90u);
  EXPECT_EQ(parse_seconds("90s"), 90u);
  EXPECT_EQ(parse_seconds("15m"), 900u);
  EXPECT_EQ(parse_seconds("7d"), 604'800u);
  EXPECT_EQ(parse_seconds(""), std::nullopt);
  EXPECT_EQ(parse_seconds("d"), std::nullopt);
  EXPECT_EQ(parse_seconds("99999999999999999999d"), std::nullopt);
}

}  // namespace
}  // namespace cake
