#include "tools/args.h"

#include <gtest/gtest.h>

#include <sstream>

#include "store/base/bytes.h"

namespace cake {
namespace {

struct Outcome {
  int status = 0;
  std::string out, err;
};

Outcome run(std::vector<std::string> args) {
  std::ostringstream out, err;
  Outcome outcome;
  outcome.status = run_cake(std::move(args), out, err);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

TEST(Args, HelpNamesEveryVerb) {
  const Outcome outcome = run({"--help"});
  EXPECT_EQ(outcome.status, 0);
  for (const char* verb : {"mount", "umount", "upgrade", "ps", "pull", "ls", "tree", "cat", "stat",
                           "du", "config", "env", "doctor", "completion"})
    EXPECT_NE(outcome.out.find(std::string("\n  ") + verb), std::string::npos) << verb;
  // What people never call is not shown.
  EXPECT_EQ(outcome.out.find("internal"), std::string::npos);
}

TEST(Args, VersionIsOneLine) {
  const Outcome outcome = run({"--version"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_TRUE(outcome.out.starts_with("cake "));
  EXPECT_EQ(outcome.out.find('\n'), outcome.out.size() - 1);
}

TEST(Args, NoVerbIsAUsageError) {
  EXPECT_EQ(run({}).status, 2);
}

TEST(Args, MistypedVerbNamesTheNearest) {
  const Outcome outcome = run({"mout", "hf:", "/models"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("did you mean 'mount'?"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

TEST(Args, ValueOfGlobalFlagIsNotTheVerb) {
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"--store", "/tmp/s", "lss"}, {"--format", "json", "-q", "lss"}}) {
    const Outcome outcome = run(args);
    EXPECT_EQ(outcome.status, 2);
    EXPECT_NE(outcome.err.find("unknown command 'lss'; did you mean 'ls'?"), std::string::npos)
        << outcome.err;
  }
}

TEST(Args, MistypedFlagNamesTheNearest) {
  const Outcome outcome = run({"pull", "a/b", "--exlude", "x"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("did you mean '--exclude'?"), std::string::npos) << outcome.err;
}

TEST(Args, UnknownFormatIsAUsageError) {
  EXPECT_EQ(run({"--format", "xml", "config"}).status, 2);
}

TEST(Args, GlobalFlagsWorkBehindTheVerb) {
  const Outcome outcome = run({"config", "store", "--store", "/somewhere"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "/somewhere\n");
}

TEST(Args, CacheDirIsTheStore) {
  EXPECT_EQ(run({"--cache-dir", "/elsewhere", "config", "store"}).out, "/elsewhere\n");
}

// Taken for one that was not given, it would lead to the default store.
TEST(Args, EmptyValueOfGlobalFlagIsAUsageError) {
  for (const char* flag : {"--store", "--cache-dir", "--endpoint", "--token-file"}) {
    const Outcome outcome = run({flag, "", "config", "store"});
    EXPECT_EQ(outcome.status, 2) << flag;
    EXPECT_NE(outcome.err.find("an empty value"), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(run({"config", "store", std::string(flag) + "="}).status, 2) << flag;
  }
}

TEST(Args, PasswordInEndpointIsAUsageErrorThatDoesNotShowIt) {
  const Outcome outcome = run({"config", "--endpoint", "https://me:secret@hub.example"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.err.find("secret"), std::string::npos);
}

TEST(Args, ConfigOfUnknownKeyNamesTheNearest) {
  const Outcome outcome = run({"config", "mem_cash"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("did you mean 'mem_cache'?"), std::string::npos) << outcome.err;
}

TEST(Args, ByteSelections) {
  const auto selected = [](std::string_view text, uint64_t bytes) {
    const Result<ByteSelection> selection = parse_byte_selection(text);
    EXPECT_TRUE(selection) << text;
    return select_bytes(*selection, bytes);
  };
  EXPECT_EQ(*selected("0-9", 100), (ByteRange{0, 10}));
  EXPECT_EQ(*selected("90-", 100), (ByteRange{90, 10}));
  EXPECT_EQ(*selected("90-1000", 100), (ByteRange{90, 10}));
  EXPECT_EQ(*selected("-10", 100), (ByteRange{90, 10}));
  EXPECT_EQ(*selected("-1000", 100), (ByteRange{0, 100}));
  EXPECT_EQ(*selected("0-18446744073709551615", 100), (ByteRange{0, 100}));
  EXPECT_FALSE(selected("100-", 100));
  EXPECT_FALSE(selected("0-", 0));
  for (const char* text : {"", "-", "5", "9-1", "a-b", "1-2-3", "-1-", "99999999999999999999-"})
    EXPECT_FALSE(parse_byte_selection(text)) << text;
}

}  // namespace
}  // namespace cake
