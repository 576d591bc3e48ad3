// How the keeper starts programs: the worker, and at an upgrade itself anew.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "fs/keeper_state.h"

namespace cake {

// Hidden subcommands of the program; what follows them is KeeperOptions::arguments.
constexpr const char* kWorkerCommand = "internal-worker";
constexpr const char* kKeeperCommand = "internal-keeper";

// Command lines and environment, laid out once: starting a worker allocates nothing.
// Confined to the keeper's thread.
class WorkerProcess {
 public:
  WorkerProcess(const std::vector<std::string>& arguments, KeeperDescriptors descriptors);

  // Forks and executes the program that is running, even when its file was replaced.  The worker
  // dies with the keeper, has SIGTERM blocked, and ignores SIGINT, SIGHUP, SIGPIPE and SIGXFSZ.
  // The process id, or -1 with errno.
  pid_t start(int oom_score_adj);

  // Whether `program --version` succeeds within a few seconds: half installed, or with a library
  // missing, it does not.  Leaves the mount's descriptors out of it.
  bool can_run(const char* program, int oom_score_adj);

  // Executes `program` in this process, with the two descriptors.  Returns only on failure (errno).
  void replace_keeper(const char* program);

 private:
  [[noreturn]] void execute_worker(pid_t keeper, int oom_score_adj);
  [[noreturn]] void execute_trial(const char* program, int oom_score_adj);
  void keep_descriptors(bool is_kept);

  // Constant after construction.
  const KeeperDescriptors descriptors_;
  std::vector<std::string> words_;
  std::vector<char*> worker_argv_;
  std::vector<char*> keeper_argv_;
  std::vector<char*> trial_argv_;
  std::vector<char*> environment_;
};

void set_oom_score_adj(int value);
int get_oom_score_adj();

}  // namespace cake
