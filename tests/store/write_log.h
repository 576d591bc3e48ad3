// What a process does to the files of a folder, in order, and what a power loss may leave of it.
//
// The system calls are interposed: the program's own definitions of pwrite, fdatasync and the like
// note the call and make it.  SQLite's go the same way.  Not in sanitizer builds, whose runtimes
// define these names themselves.
#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "store/base/bytes.h"

namespace cake {

struct WriteOp {
  enum class Kind { write, truncate, punch, sync, rename, remove };
  Kind kind = Kind::write;
  std::string path;  // below the folder
  std::string to;    // rename
  uint64_t offset = 0;
  uint64_t length = 0;
  Buffer bytes;  // write
};

// Recorded from start() to stop(), in this process; one folder at a time.
class WriteLog {
 public:
  static bool is_available();
  static void start(const std::string& folder);
  static std::vector<WriteOp> stop();
  // Calls noted so far.
  static size_t size();
};

// A state of the folder after power was lost when `count` operations had been called.
//
// The model is a journalling file system with ordered metadata: a sync of a file keeps its data and
// all metadata before it; later metadata is lost from some point on; later writes are lost, kept or
// torn at a multiple of 512, each for itself.
using DiskState = std::map<std::string, Buffer>;
DiskState disk_after_power_loss(const std::vector<WriteOp>& ops, size_t count,
                                std::mt19937_64& random);
void write_disk(const DiskState& state, const std::string& folder);

}  // namespace cake
