#include "tools/table.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "store/base/bytes.h"

namespace cake {
namespace {

Table sample() {
  Table table({{"ID"}, {"SIZE", true}, {"CACHED%", true}, {"LAST_ACCESSED"}, {"REFS"}});
  table.add({std::string("model/a/b"), Bytes{3 * kGiB}, Percent{62.5}, Time{1'700'000'000},
             std::vector<std::string>{"main", "v1"}});
  table.add({std::string("model/long/name"), Bytes{10}, Percent{100}, Time{0},
             std::vector<std::string>{}});
  return table;
}

std::string printed(const Table& table, Format format, size_t width = 0) {
  std::ostringstream out;
  table.print(format, out, width);
  return out.str();
}

TEST(Table, HumanAlignsAndRounds) {
  EXPECT_EQ(printed(sample(), Format::human),
            "ID               SIZE  CACHED%  LAST_ACCESSED         REFS\n"
            "model/a/b        3.0G      62%  2023-11-14T22:13:20Z  main,v1\n"
            "model/long/name    10     100%  -                     -\n");
}

TEST(Table, TabsHaveFullValues) {
  EXPECT_EQ(printed(sample(), Format::tabs),
            "ID\tSIZE\tCACHED%\tLAST_ACCESSED\tREFS\n"
            "model/a/b\t3221225472\t62.500\t2023-11-14T22:13:20Z\tmain,v1\n"
            "model/long/name\t10\t100.000\t-\t-\n");
}

TEST(Table, QuietPrintsTheFirstColumn) {
  EXPECT_EQ(printed(sample(), Format::quiet), "model/a/b\nmodel/long/name\n");
}

TEST(Table, JsonHasStableKeysAndBytes) {
  const auto json = nlohmann::json::parse(printed(sample(), Format::json));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["id"], "model/a/b");
  EXPECT_EQ(json[0]["size"], 3 * kGiB);
  EXPECT_EQ(json[0]["cached_percent"], 62.5);
  EXPECT_EQ(json[0]["last_accessed"], "2023-11-14T22:13:20Z");
  EXPECT_EQ(json[0]["refs"], (std::vector<std::string>{"main", "v1"}));
  EXPECT_TRUE(json[1]["last_accessed"].is_null());
}

// JSON lets DEL and C1 through as they are.
TEST(Table, JsonCannotSteerTheTerminal) {
  Table table({{"ID"}});
  table.add(
      {std::string("a\x1b[1m\xc2\x9b"
                   "31m")});
  const std::string text = printed(table, Format::json);
  EXPECT_EQ(text.find_first_of("\x1b\x9b"), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(text)[0]["id"],
            "a\x1b[1m\xc2\x9b"
            "31m");
}

TEST(Facts, SeveralAreOneArray) {
  std::vector<Facts> several(2);
  several[0].add("path", std::string("a"));
  several[1].add("path", std::string("b"));
  std::ostringstream out;
  print_json_array(several, out);
  EXPECT_EQ(nlohmann::json::parse(out.str()),
            nlohmann::json::parse(R"([{"path": "a"}, {"path": "b"}])"));
}

TEST(Table, EmptyTableIsAnEmptyArray) {
  EXPECT_EQ(printed(Table({{"ID"}}), Format::json), "[]\n");
}

TEST(Table, CutsLinesToTheTerminal) {
  for (const auto& width : {20u, 40u}) {
    std::istringstream lines(printed(sample(), Format::human, width));
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), width);
  }
}

// A file on a hub may be called "\x1b[2J": it must not clear the reader's screen.
TEST(Table, ControlCharactersOfNamesAreNotPrinted) {
  Table table({{"PATH"}});
  table.add({std::string("a\x1b[2J\nb\tc")});
  EXPECT_EQ(printed(table, Format::tabs), "PATH\na?[2J?b?c\n");
  EXPECT_EQ(printed(table, Format::quiet), "a?[2J?b?c\n");
}

TEST(Table, NamesThatAreNotUtf8DoNotBreakJson) {
  Table table({{"PATH"}});
  table.add({std::string("a\xff")});
  EXPECT_TRUE(nlohmann::json::accept(printed(table, Format::json)));
}

TEST(Facts, Formats) {
  Facts facts;
  facts.add("path", std::string("a/b"));
  facts.add("size", Bytes{2048});
  facts.add("verified", true);
  facts.add("sha256", Cell());
  std::ostringstream human, tabs, quiet, json;
  facts.print(Format::human, human);
  facts.print(Format::tabs, tabs);
  facts.print(Format::quiet, quiet);
  facts.print(Format::json, json);
  EXPECT_EQ(human.str(), "path      a/b\nsize      2.0K\nverified  yes\nsha256    -\n");
  EXPECT_EQ(tabs.str(), "path\ta/b\nsize\t2048\nverified\tyes\nsha256\t-\n");
  EXPECT_EQ(quiet.str(), "a/b\n");
  EXPECT_EQ(nlohmann::json::parse(json.str())["sha256"], nullptr);
}

}  // namespace
}  // namespace cake
