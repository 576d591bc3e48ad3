// A mounted pattern_mount, for the tests of keeper and worker; root and /dev/fuse are needed.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "fs/mount_record.h"

namespace cake {

// Exit status of a program; 124 when it ran longer than a minute.
int run_command(const std::vector<std::string>& words, std::string* error_output = nullptr);

// True once `condition` holds; false after `seconds`.
bool wait_until_true(const std::function<bool()>& condition, int seconds = 20);

// A zombie is not running.
bool is_running(pid_t pid);

std::string pattern_mount_program();
bool can_mount();

class PatternMount {
 public:
  // Mounts on a directory of its own, which is removed, with whatever is mounted, at the end.
  explicit PatternMount(std::vector<std::string> settings = {});
  ~PatternMount();

  int exit_status() const { return exit_status_; }
  const std::string& error_output() const { return error_output_; }
  const std::string& directory() const { return directory_; }
  std::string path(const std::string& name) const { return mount_point_ + "/" + name; }
  const std::string& mount_point() const { return mount_point_; }
  MountRecord record() const;
  bool is_mounted() const;
  // Of the root, -1 when it cannot be had.
  long attribute(const std::string& name) const;
  // By a signal, and waits for the next one's readiness, without touching the mount.
  void end_worker(int signal_number) const;
  void kill_worker() const { end_worker(SIGKILL); }

 private:
  std::string directory_;
  std::string mount_point_;
  int exit_status_ = -1;
  std::string error_output_;
};

// Threads that read `f` until stopped and check every byte: mmap, pread and O_DIRECT by turns.
class Readers {
 public:
  Readers(const std::string& path, unsigned threads);
  ~Readers() { stop(); }
  void stop();
  uint64_t errors() const { return errors_; }
  uint64_t wrong_bytes() const { return wrong_bytes_; }
  uint64_t read_bytes() const { return read_bytes_; }

 private:
  void read_some(const std::string& path, unsigned kind, unsigned seed);

  std::atomic<bool> is_stopping_{false};
  std::atomic<uint64_t> errors_{0};
  std::atomic<uint64_t> wrong_bytes_{0};
  std::atomic<uint64_t> read_bytes_{0};
  std::vector<std::thread> threads_;
};

// Differences to the pattern at `offset`.
uint64_t count_wrong_bytes(const unsigned char* bytes, size_t length, uint64_t offset);

}  // namespace cake
