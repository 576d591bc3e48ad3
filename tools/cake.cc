// The program `cake`, which is also mount.cakefs and the processes behind a mount.
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "fs/invalidate.h"
#include "fs/keeper.h"
#include "fs/worker_process.h"
#include "tools/args.h"
#include "tools/mounts.h"
#include "tools/worker.h"

int main(int argc, char** argv) {
  const std::string_view program = argc > 0 ? argv[0] : "cake";
  std::vector<std::string> args;
  for (int i = 1; i < argc; i++) args.emplace_back(argv[i]);
  if (program.ends_with("mount.cakefs")) return cake::run_mount_helper(args, std::cout, std::cerr);
  // The processes of a mount: started by each other, never by people.
  if (!args.empty()) {
    const std::vector<std::string> rest(args.begin() + 1, args.end());
    if (args[0] == cake::kWorkerCommand) return cake::run_mount_worker(rest);
    if (args[0] == cake::kKeeperCommand) return cake::resume_keeper(rest);
    if (args[0] == cake::kInvalidateCommand) return cake::run_invalidate(rest);
  }
  return cake::run_cake(std::move(args), std::cout, std::cerr);
}
