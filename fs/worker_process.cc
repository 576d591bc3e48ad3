#include "fs/worker_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "store/base/bytes.h"

namespace cake {
namespace {

// A program on a slow disk is read within it; readers wait meanwhile.
constexpr int kTrialMs = 5000;

}  // namespace

WorkerProcess::WorkerProcess(const std::vector<std::string>& arguments,
                             KeeperDescriptors descriptors, WorkerMain main)
    : descriptors_(descriptors), main_(main), arguments_(arguments) {
  words_.push_back("cake");
  words_.push_back(kKeeperCommand);
  words_.push_back("--version");
  words_.push_back(cat(kKeeperVariable, "=", descriptors.fuse, ",", descriptors.memory));
  words_.insert(words_.end(), arguments.begin(), arguments.end());
  keeper_argv_ = {words_[0].data(), words_[1].data()};
  trial_argv_ = {words_[0].data(), words_[2].data(), nullptr};
  for (size_t i = 4; i < words_.size(); i++) keeper_argv_.push_back(words_[i].data());
  keeper_argv_.push_back(nullptr);
  const std::string prefix = cat(kKeeperVariable, "=");
  for (char** entry = environ; *entry != nullptr; entry++)
    if (strncmp(*entry, prefix.c_str(), prefix.size()) != 0) environment_.push_back(*entry);
  environment_.push_back(words_[3].data());
  environment_.push_back(nullptr);
}

pid_t WorkerProcess::start(int oom_score_adj) {
  const pid_t keeper = getpid();
  const pid_t pid = fork();
  if (pid == 0) become_worker(keeper, oom_score_adj);
  return pid;
}

void WorkerProcess::become_worker(pid_t keeper, int oom_score_adj) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != keeper) _exit(127);  // it died before the line above
  prctl(PR_SET_NAME, "cake-worker");
  set_oom_score_adj(oom_score_adj);
  // A limit on the size of files (ulimit -f) is a write that fails, and what it was for not stored.
  for (const int ignored : {SIGINT, SIGHUP, SIGPIPE, SIGXFSZ}) signal(ignored, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  // The keeper's connection to syslog, before its descriptor is somebody else's.
  closelog();
  const unsigned lower = static_cast<unsigned>(std::min(descriptors_.fuse, descriptors_.memory));
  const unsigned upper = static_cast<unsigned>(std::max(descriptors_.fuse, descriptors_.memory));
  if (lower > 3) syscall(SYS_close_range, 3u, lower - 1, 0u);
  if (upper > lower + 1) syscall(SYS_close_range, lower + 1, upper - 1, 0u);
  syscall(SYS_close_range, upper + 1, ~0u, 0u);
  setenv(kKeeperVariable, words_[3].c_str() + strlen(kKeeperVariable) + 1, 1);
  exit(main_(arguments_));
}

bool WorkerProcess::can_run(const char* program, int oom_score_adj) {
  const pid_t pid = fork();
  if (pid == 0) execute_trial(program, oom_score_adj);
  if (pid < 0) return false;
  const int watch = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  pollfd ended{watch, POLLIN, 0};
  if (watch < 0 || poll(&ended, 1, kTrialMs) != 1) {
    kill(pid, SIGKILL);
    if (watch >= 0) poll(&ended, 1, kTrialMs);
  }
  int status = -1;
  // One that waits for a disk does not die at once; it stays a zombie as long as we live.
  const bool is_reaped = waitpid(pid, &status, WNOHANG) == pid;
  if (watch >= 0) close(watch);
  return is_reaped && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void WorkerProcess::execute_trial(const char* program, int oom_score_adj) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  set_oom_score_adj(oom_score_adj);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDWR);
  for (const int fd : {0, 1, 2}) dup2(null, fd);
  syscall(SYS_close_range, 3u, ~0u, 0u);
  execv(program, trial_argv_.data());
  _exit(127);
}

void WorkerProcess::replace_keeper(const char* program) {
  keep_descriptors(true);
  execve(program, keeper_argv_.data(), environment_.data());
  const int failed = errno;
  keep_descriptors(false);
  errno = failed;
}

void WorkerProcess::keep_descriptors(bool is_kept) {
  for (const int fd : {descriptors_.fuse, descriptors_.memory})
    fcntl(fd, F_SETFD, is_kept ? 0 : FD_CLOEXEC);
}

void set_oom_score_adj(int value) {
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;  // advice: without /proc, or without the right to lower it, we stay as we are
  dprintf(fd, "%d", value);
  close(fd);
}

int get_oom_score_adj() {
  char text[32] = {};
  const int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  return got > 0 ? atoi(text) : 0;
}

}  // namespace cake
