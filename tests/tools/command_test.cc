#include "tools/command.h"

#include <gtest/gtest.h>

#include <sstream>

namespace cake {
namespace {

// The table of man/cake.1, row by row: scripts branch on these numbers.
TEST(Command, ExitStatuses) {
  EXPECT_EQ(exit_status(Errc::not_found), 3);
  EXPECT_EQ(exit_status(Errc::denied), 4);
  EXPECT_EQ(exit_status(Errc::no_space), 5);
  EXPECT_EQ(exit_status(Errc::offline), 6);
  EXPECT_EQ(exit_status(Errc::timeout), 1);
  EXPECT_EQ(exit_status(Errc::rate_limited), 1);
  EXPECT_EQ(exit_status(Errc::upstream), 1);
  EXPECT_EQ(exit_status(Errc::corrupt), 1);
  EXPECT_EQ(exit_status(Errc::stale), 1);
  EXPECT_EQ(exit_status(Errc::io), 1);
  EXPECT_EQ(exit_status(Errc::cancelled), 130);
  EXPECT_EQ(exit_status(Errc::invalid), 2);
  EXPECT_EQ(exit_status(Errc::unsupported), 2);
}

// A path that does not exist is no repo that the hub does not have.
TEST(Command, ErrorsOfThisMachineAreNotTheHubs) {
  const auto status = [](Errc code) {
    return exit_status(of_this_machine(Status(Error{code, ""})).error().code);
  };
  EXPECT_EQ(status(Errc::not_found), kExitFailed);
  EXPECT_EQ(status(Errc::denied), kExitFailed);
  EXPECT_EQ(status(Errc::no_space), 5);
  EXPECT_EQ(*of_this_machine(Result<int>(7)), 7);
}

// Names come from a hub, and paths from whoever wrote the script.
TEST(Command, MessagesCannotSteerTheTerminal) {
  std::ostringstream out, err;
  Context context{Globals(), Config(), Format::human, out, err};
  fail(context, {Errc::io,
                 "x\x1b]0;pwned\a\xc2\x9b"
                 "31m"});
  say(context, "materialized x\x1b[31m\nforged");
  EXPECT_EQ(err.str(), "cake: x?]0;pwned??31m\nmaterialized x?[31m?forged\n");
}

TEST(Command, FormatFollowsFlagsThenTerminal) {
  Globals globals;
  EXPECT_EQ(choose_format(globals, true), Format::human);
  EXPECT_EQ(choose_format(globals, false), Format::tabs);
  globals.format = "human";
  EXPECT_EQ(choose_format(globals, false), Format::human);
  globals.json = true;
  EXPECT_EQ(choose_format(globals, true), Format::json);
  globals.quiet = true;
  EXPECT_EQ(choose_format(globals, true), Format::quiet);
}

}  // namespace
}  // namespace cake
