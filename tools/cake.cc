// The program `cake`, which is also mount.cakefs and the processes behind a mount.
#include <fcntl.h>
#include <unistd.h>

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

namespace {

// A standard descriptor that is closed would be the number of the next file that is opened: a pack,
// the index, a socket, into which all output would go then.
bool open_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) != -1) continue;
    // Data that nobody takes is a failure: on a descriptor for reading, writing says so.
    const int flags = fd == STDOUT_FILENO ? O_RDONLY : O_RDWR;
    // The lowest number that is free, which is this one.
    if (open("/dev/null", flags) != fd) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (!open_standard_descriptors()) return 1;
  const std::string_view program = argc > 0 ? argv[0] : "cake";
  std::vector<std::string> args;
  for (int i = 1; i < argc; i++) args.emplace_back(argv[i]);
  if (program.ends_with("mount.cakefs") || program.ends_with("mount.fuse.cakefs"))
    return cake::run_mount_helper(args, std::cout, std::cerr);
  // Processes of a mount: started by each other, never by people.
  if (!args.empty()) {
    const std::vector<std::string> rest(args.begin() + 1, args.end());
    if (args[0] == cake::kKeeperCommand) return cake::resume_keeper(cake::run_mount_worker, rest);
    if (args[0] == cake::kInvalidateCommand) return cake::run_invalidate(rest);
  }
  return cake::run_cake(std::move(args), std::cout, std::cerr);
}
