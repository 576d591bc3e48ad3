#include "fetch/credentials.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() {
    std::string pattern = testing::TempDir() + "/cake-credentials-XXXXXX";
    const char* made = ::mkdtemp(pattern.data());
    EXPECT_NE(made, nullptr);
    dir_ = pattern;
    variables_["HOME"] = dir_;
  }
  ~CredentialsTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }
  std::string write(const std::string& name, std::string_view text) {
    const std::string path = dir_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    EXPECT_TRUE(write_file_atomically(path, as_bytes(text), 0600));
    return path;
  }
  Credentials make(std::string token_file = "") const {
    return Credentials(std::move(token_file),
                       [this](const char* name) -> std::optional<std::string> {
                         const auto found = variables_.find(name);
                         if (found == variables_.end()) return std::nullopt;
                         return found->second;
                       });
  }

  std::string dir_;
  std::map<std::string, std::string> variables_;
};

TEST_F(CredentialsTest, NoneAnywhereIsNoError) {
  EXPECT_EQ(*make().token(), "");
}

TEST_F(CredentialsTest, FollowsTheOrderOfTheOfficialTools) {
  write(".cache/huggingface/token", "home\n");
  EXPECT_EQ(*make().token(), "home");
  variables_["XDG_CACHE_HOME"] = dir_ + "/xdg";
  write("xdg/huggingface/token", "xdg");
  EXPECT_EQ(*make().token(), "xdg");
  variables_["HF_HOME"] = "~/hf";
  write("hf/token", " hf \r\n");
  EXPECT_EQ(*make().token(), "hf");
  variables_["HF_TOKEN_PATH"] = "${HOME}/explicit";
  write("explicit", "path");
  EXPECT_EQ(*make().token(), "path");
  variables_["HUGGING_FACE_HUB_TOKEN"] = "legacy";
  EXPECT_EQ(*make().token(), "legacy");
  variables_["HF_TOKEN"] = " env\n";
  EXPECT_EQ(*make().token(), "env");
  EXPECT_EQ(make().origin(), "HF_TOKEN");
  EXPECT_EQ(*make(write("mine", "file")).token(), "file");
}

TEST_F(CredentialsTest, BlankVariableIsNone) {
  variables_["HF_TOKEN"] = "  \n";
  write(".cache/huggingface/token", "home");
  EXPECT_EQ(*make().token(), "home");
}

TEST_F(CredentialsTest, ImplicitTokensCanBeSwitchedOff) {
  variables_["HF_TOKEN"] = "env";
  variables_["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "Yes";
  EXPECT_EQ(*make().token(), "");
  EXPECT_EQ(*make(write("mine", "file")).token(), "file");
}

TEST_F(CredentialsTest, ReadsAChangedFileAgain) {
  const Credentials credentials = make(write("mine", "one"));
  EXPECT_EQ(*credentials.token(), "one");
  write("mine", "two");
  EXPECT_EQ(*credentials.token(), "two");
}

TEST_F(CredentialsTest, MissingGivenFileIsDenied) {
  const auto got = make(dir_ + "/absent").token();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::denied);
}

TEST_F(CredentialsTest, RefusesWhatCouldSplitAHeaderWithoutRepeatingIt) {
  for (const char* bad : {"hf_secret\r\nX-Evil: 1", "hf_secret two", "hf_secret\xc3\xa9"}) {
    variables_["HF_TOKEN"] = bad;
    const auto got = make().token();
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, Errc::invalid);
    EXPECT_EQ(got.error().message.find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace cake
