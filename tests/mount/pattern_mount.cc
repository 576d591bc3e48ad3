#include "tests/mount/pattern_mount.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

#include "fs/mountinfo.h"
#include "store/base/bytes.h"
#include "store/base/file.h"
#include "tests/programs/pattern.h"

namespace cake {

int run_command(const std::vector<std::string>& words, std::string* error_output) {
  char name[] = "/tmp/cakefs-stderr-XXXXXX";
  const File output(mkostemp(name, O_CLOEXEC), name);
  unlink(name);
  const pid_t pid = fork();
  if (pid == 0) {
    std::vector<char*> argv;
    std::vector<std::string> copy = words;
    for (std::string& word : copy) argv.push_back(word.data());
    argv.push_back(nullptr);
    dup2(output.fd(), 2);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  if (!wait_until_true([&] { return waitpid(pid, &status, WNOHANG) == pid; }, 60)) {
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return 124;
  }
  if (error_output != nullptr) {
    char text[4096];
    const ssize_t got = pread(output.fd(), text, sizeof text, 0);
    error_output->assign(text, got > 0 ? static_cast<size_t>(got) : 0);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool wait_until_true(const std::function<bool()>& condition, int seconds) {
  const Deadline deadline = Deadline::after(Millis(seconds * 1000));
  while (!condition()) {
    if (deadline.has_passed()) return false;
    usleep(1000);
  }
  return true;
}

std::string pattern_mount_program() {
  char path[PATH_MAX];
  const ssize_t bytes = readlink("/proc/self/exe", path, sizeof path);
  const std::string self(path, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  return self.substr(0, self.rfind('/') + 1) + "pattern_mount";
}

bool is_running(pid_t pid) {
  const Result<std::string> stat = read_text_file(cat("/proc/", pid, "/stat"), 4096);
  if (!stat) return false;
  const size_t state = stat->rfind(") ");
  return state != std::string::npos && (*stat)[state + 2] != 'Z' && (*stat)[state + 2] != 'X';
}

bool can_mount() {
  return geteuid() == 0 && access("/dev/fuse", R_OK | W_OK) == 0;
}

PatternMount::PatternMount(std::vector<std::string> settings) {
  char name[] = "/tmp/cakefs-mount-XXXXXX";
  directory_ = mkdtemp(name);
  mount_point_ = directory_ + "/mnt";
  mkdir(mount_point_.c_str(), 0755);
  settings.insert(settings.begin(), {pattern_mount_program(), mount_point_});
  exit_status_ = run_command(settings, &error_output_);
}

PatternMount::~PatternMount() {
  const Result<MountRecord> record = find_mount_record(mount_point_);
  if (record) {
    kill(record->keeper.pid, SIGTERM);
    if (!wait_until_true([&] { return !is_running(record->keeper.pid); }, 10))
      kill(record->keeper.pid, SIGKILL);
  }
  while (umount2(mount_point_.c_str(), MNT_DETACH) == 0) {
  }
  run_command({"rm", "-rf", "--one-file-system", directory_});
}

MountRecord PatternMount::record() const {
  Result<MountRecord> record = find_mount_record(mount_point_);
  return record ? std::move(*record) : MountRecord{};
}

bool PatternMount::is_mounted() const {
  const Result<std::vector<MountEntry>> mounts = read_mountinfo();
  const MountEntry* top = mounts ? find_top_mount(*mounts, mount_point_) : nullptr;
  return top != nullptr && top->type == kMountType;
}

long PatternMount::attribute(const std::string& name) const {
  char value[64] = {};
  return getxattr(mount_point_.c_str(), name.c_str(), value, sizeof value - 1) < 0
             ? -1
             : strtol(value, nullptr, 10);
}

void PatternMount::end_worker(int signal_number) const {
  const MountRecord before = record();
  kill(before.worker_pid, signal_number);
  wait_until_true([&] { return record().generation > before.generation; });
}

uint64_t count_wrong_bytes(const unsigned char* bytes, size_t length, uint64_t offset) {
  uint64_t wrong = 0;
  for (size_t i = 0; i < length; i++) wrong += bytes[i] != pattern_at(offset + i);
  return wrong;
}

Readers::Readers(const std::string& path, unsigned threads) {
  for (unsigned i = 0; i < threads; i++)
    threads_.emplace_back([this, path, i] {
      for (unsigned round = 0; !is_stopping_; round++) read_some(path, i % 3, i * 1000 + round);
    });
}

void Readers::stop() {
  is_stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

// A run of 4 MiB somewhere, out of the page cache first, so that the worker is asked again.
void Readers::read_some(const std::string& path, unsigned kind, unsigned seed) {
  constexpr size_t kRun = 4 * kMiB;
  std::minstd_rand random(seed);
  const uint64_t offset = random() % (kPatternBytes / kRun) * kRun;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | (kind == 2 ? O_DIRECT : 0));
  if (fd < 0) {
    errors_++;
    return;
  }
  posix_fadvise(fd, static_cast<off_t>(offset), kRun, POSIX_FADV_DONTNEED);
  const auto at = static_cast<off_t>(offset);
  if (kind == 0) {
    void* map = mmap(nullptr, kRun, PROT_READ, MAP_SHARED, fd, at);
    if (map == MAP_FAILED)
      errors_++;
    else
      wrong_bytes_ += count_wrong_bytes(static_cast<unsigned char*>(map), kRun, offset);
    munmap(map, kRun);
  } else {
    void* buffer = nullptr;
    if (posix_memalign(&buffer, 4096, kRun) != 0) abort();
    if (pread(fd, buffer, kRun, at) != static_cast<ssize_t>(kRun))
      errors_++;
    else
      wrong_bytes_ += count_wrong_bytes(static_cast<unsigned char*>(buffer), kRun, offset);
    free(buffer);
  }
  read_bytes_ += kRun;
  close(fd);
}

}  // namespace cake
