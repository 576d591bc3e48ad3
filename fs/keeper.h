// The keeper: the small process that holds a mount while workers come and go.
//
// It opens the kernel connection, mounts, starts the worker, starts another when that one crashes,
// and on SIGHUP hands everything to the program that is then installed.  One thread; after the
// start it allocates nothing until it ends, so that a machine out of memory does not lose its
// mounts.
//
//   SIGHUP   upgrade: the worker drains, the keeper executes the installed program, which starts
//            its worker.
//   SIGTERM  unmount; lazily when files are open, and the end comes when the last one is closed.
//            A second one ends the mount at once.
#pragma once

#include <string>
#include <vector>

#include "fs/mount.h"
#include "fs/worker_process.h"
#include "store/base/clock.h"

namespace cake {

struct KeeperOptions {
  MountOptions mount;
  WorkerMain worker = nullptr;
  // Its arguments; they follow kKeeperCommand on the command line of the next keeper.
  std::vector<std::string> arguments;
  // Absolute path that an upgrade executes; empty: the program that is running.
  std::string program;
  bool is_foreground = false;
  unsigned max_deaths = 10;  // crashes within a minute that end the mount
  // So long workers may be killed (SIGKILL) with nothing answered between; then it counts.
  Millis kill_patience{60'000};
};

// Exit statuses of mount(8).
constexpr int kMountUsage = 1;
constexpr int kMountSystem = 2;
constexpr int kMountFailure = 32;

// Mounts and keeps.  Call before threads, logs and stores are opened: in the background everything
// but stdio is closed.  What goes wrong until the mount is ready is said on stderr, by the keeper
// or by the worker, and the mount is undone.
//
// Background: returns 0 in the caller once the mount serves, else the exit status.  The status of a
// worker that could not start is passed on when it is one of mount(8)'s.
// Foreground: returns when the mount is gone, 0 when it was unmounted.
int run_keeper(const KeeperOptions& options);

// `cake internal-keeper ARGUMENTS…`: goes on with what the program before had.  Returns as a
// foreground run_keeper does.
int resume_keeper(WorkerMain worker, const std::vector<std::string>& arguments);

}  // namespace cake
