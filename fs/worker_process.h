// How the keeper starts programs: the worker, and at an upgrade itself anew.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "fs/keeper_state.h"

namespace cake {

// Hidden subcommand of the program; what follows it is KeeperOptions::arguments.
constexpr const char* kKeeperCommand = "internal-keeper";

// What a worker does, from beginning to end: its exit status.
using WorkerMain = int (*)(const std::vector<std::string>& arguments);

// Command lines and environment, laid out once: the keeper allocates nothing when it starts one.
// Confined to the keeper's thread.
class WorkerProcess {
 public:
  WorkerProcess(const std::vector<std::string>& arguments, KeeperDescriptors descriptors,
                WorkerMain main);

  // Forks, and calls `main` there: loading and linking the program anew would be a third of the
  // time that readers wait for the next worker.  The worker dies with the keeper, has SIGTERM
  // blocked, ignores SIGINT, SIGHUP, SIGPIPE and SIGXFSZ, and has stdio and the two descriptors
  // open.  The process id, or -1 with errno.
  pid_t start(int oom_score_adj);

  // Whether `program --version` succeeds within a few seconds: half installed, or with a library
  // missing, it does not.  Leaves the mount's descriptors out of it.
  bool can_run(const char* program, int oom_score_adj);

  // Executes `program` in this process, with the two descriptors.  Returns only on failure (errno).
  void replace_keeper(const char* program);

 private:
  [[noreturn]] void become_worker(pid_t keeper, int oom_score_adj);
  [[noreturn]] void execute_trial(const char* program, int oom_score_adj);
  void keep_descriptors(bool is_kept);

  // Constant after construction.
  const KeeperDescriptors descriptors_;
  const WorkerMain main_;
  const std::vector<std::string> arguments_;
  std::vector<std::string> words_;
  std::vector<char*> keeper_argv_;
  std::vector<char*> trial_argv_;
  std::vector<char*> environment_;
};

void set_oom_score_adj(int value);
int get_oom_score_adj();

}  // namespace cake
