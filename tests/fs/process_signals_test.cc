#include "fs/process_signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cake {
namespace {

TEST(FatalSignal, IsReadFromEitherMask) {
  EXPECT_TRUE(says_fatal_signal_pending("State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n"));
  EXPECT_TRUE(says_fatal_signal_pending("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000101\n"));
  EXPECT_TRUE(says_fatal_signal_pending("State:\tZ (zombie)\n"));
}

// A profiler's or timer's signal must not end a read: EINTR under a page fault is SIGBUS.
TEST(FatalSignal, IsSigkillAlone) {
  EXPECT_FALSE(says_fatal_signal_pending(
      "State:\tS (sleeping)\nSigPnd:\tfffffffffffffeff\nShdPnd:\tfffffffffffffeff\n"));
  EXPECT_FALSE(says_fatal_signal_pending("Name:\tSigPnd: 100\n"));
  EXPECT_FALSE(says_fatal_signal_pending(""));
}

// SIGKILL leaves the masks when it is taken, and is not queued for who is past that.
TEST(FatalSignal, ExitingThreadIsToldByItsFlags) {
  EXPECT_TRUE(says_exiting("7 (a) b) D 1 7 7 0 -1 4194316 100 0 0 0\n"));
  EXPECT_FALSE(says_exiting("7 (a) b) D 1 7 7 0 -1 4194304 100 4 4 4\n"));
  EXPECT_FALSE(says_exiting("7 (a) D 1 7"));
  EXPECT_FALSE(says_exiting(""));
}

TEST(FatalSignal, LivingProcessHasNone) {
  EXPECT_FALSE(has_fatal_signal_pending(getpid()));
  EXPECT_FALSE(has_fatal_signal_pending(gettid()));
  EXPECT_FALSE(has_fatal_signal_pending(0));
}

TEST(FatalSignal, DeadProcessIsToldApart) {
  const pid_t pid = fork();
  if (pid == 0) _exit(0);
  siginfo_t info{};
  waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  EXPECT_TRUE(has_fatal_signal_pending(pid));  // a zombie
  waitpid(pid, nullptr, 0);
  EXPECT_TRUE(has_fatal_signal_pending(pid));
}

}  // namespace
}  // namespace cake
