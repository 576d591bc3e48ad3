#include "fs/keeper.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "fs/abort_connection.h"
#include "fs/fuse_uapi.h"
#include "fs/keeper_state.h"
#include "fs/mount_record.h"
#include "fs/mountinfo.h"
#include "fs/resident_program.h"
#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint64_t kDeathWindowNs = 60'000 * kNsPerMs;
// The worker has 2 s to finish what is in memory; one that hangs is killed, and what it had is
// sent again.
constexpr uint64_t kDrainNs = 5'000 * kNsPerMs;
// A worker that was killed leaves at once, but for one that waits for a disk that does not answer.
constexpr uint64_t kReapNs = 5'000 * kNsPerMs;
constexpr uint64_t kMaxPauseNs = 5'000 * kNsPerMs;
// How many kills without an answer weigh as much as a crash.
constexpr uint64_t kKillsPerDeath = 5;

uint64_t nanoseconds(Millis time) {
  return static_cast<uint64_t>(time.count()) * kNsPerMs;
}

enum class Phase { starting, serving, draining, pausing };

// One mount's keeper.  Confined to its thread.
class Keeper {
 public:
  Keeper(KeeperMemory memory, File fuse, WorkerMain worker,
         const std::vector<std::string>& arguments, int report_fd);

  // Until the mount has ended; the exit status.
  int run();

 private:
  void start_worker();
  void on_signal(int signal_number);
  void on_timer();
  void reap();
  void on_ready();
  void note_served();
  void on_worker_gone(int status);
  void on_first_worker_gone(int status);
  void on_crash(int status);
  void begin_upgrade();
  void upgrade();
  void begin_unmount();
  void pause_then_start(uint64_t deaths);
  uint64_t count_death(int status, uint64_t now_ns);
  bool kernel_resends() const;
  void signal_worker(int signal_number) const;
  void await_worker();

  std::optional<std::string> our_mount_point() const;
  void detach();
  void end(int code);
  void raise_readahead();
  void prepare_record();
  void write_record();
  bool report_ready();
  void give_up_stdio();
  void say(int priority, const char* format, ...) __attribute__((format(printf, 3, 4)));

  KeeperMemory memory_;
  KeeperState& state_;
  File fuse_;
  WorkerProcess process_;
  const int report_fd_;  // -1: nobody waits

  Phase phase_ = Phase::starting;
  bool has_served_;  // else what goes wrong is the caller's business
  bool is_quiet_;    // stdio is gone: syslog
  bool wants_upgrade_ = false;
  bool is_unmounting_ = false;
  bool has_ended_ = false;
  int exit_code_ = 0;
  pid_t worker_ = -1;
  uint64_t wake_ns_ = 0;  // 0: no timer

  // Laid out at the start, so that nothing is allocated later.
  std::vector<uint64_t> deaths_;  // ring
  uint64_t kills_in_a_row_ = 0;
  uint64_t answered_before_ = 0;
  uint64_t last_death_ns_ = 0;
  uint64_t row_began_ns_ = 0;  // the first death since something was answered
  size_t next_death_ = 0;
  std::string record_tail_;
  std::string record_temporary_;
  std::vector<char> record_text_;
};

Keeper::Keeper(KeeperMemory memory, File fuse, WorkerMain worker,
               const std::vector<std::string>& arguments, int report_fd)
    : memory_(std::move(memory)),
      state_(*memory_),
      fuse_(std::move(fuse)),
      process_(arguments, {fuse_.fd(), memory_.fd()}, worker),
      report_fd_(report_fd),
      has_served_(state_.ready_generation.load() != 0),
      is_quiet_(has_served_ && state_.is_background != 0),
      deaths_(std::max(1u, state_.max_deaths), 0) {
  prepare_record();
}

int Keeper::run() {
  sigset_t awaited;
  sigemptyset(&awaited);
  for (const int number : {SIGCHLD, SIGHUP, SIGTERM, SIGINT, SIGUSR1}) sigaddset(&awaited, number);
  sigprocmask(SIG_BLOCK, &awaited, nullptr);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_NAME, "cake-keeper");
  state_.keeper_pid.store(getpid());
  start_worker();
  keep_program_resident();
  while (!has_ended_) {
    timespec timeout{3600, 0};
    if (wake_ns_ != 0) {
      const uint64_t now_ns = monotonic_ns();
      const uint64_t left_ns = wake_ns_ > now_ns ? wake_ns_ - now_ns : 0;
      timeout = {static_cast<time_t>(left_ns / 1'000'000'000),
                 static_cast<long>(left_ns % 1'000'000'000)};
    }
    const int number = sigtimedwait(&awaited, nullptr, &timeout);
    if (number > 0) on_signal(number);
    if (!has_ended_ && wake_ns_ != 0 && monotonic_ns() >= wake_ns_) on_timer();
  }
  return exit_code_;
}

void Keeper::start_worker() {
  phase_ = Phase::starting;
  wake_ns_ = 0;
  state_.ending.store(WorkerEnding::unknown);
  state_.generation.fetch_add(1);
  worker_ = process_.start(state_.oom_score_adj);
  if (worker_ < 0) {  // no memory, no process ids: as a crash
    say(LOG_ERR, "%s: starting a worker: %s", state_.mount_point, strerror(errno));
    on_worker_gone(127 << 8);
    return;
  }
  state_.worker_pid.store(worker_);
}

void Keeper::on_signal(int number) {
  if (number == SIGUSR1) {
    if (phase_ == Phase::starting && state_.ready_generation.load() == state_.generation.load())
      on_ready();
  } else if (number == SIGHUP) {
    begin_upgrade();
  } else if (number == SIGTERM || number == SIGINT) {
    begin_unmount();
  } else if (number == SIGCHLD) {
    reap();
  }
}

void Keeper::reap() {
  int status = 0;
  if (worker_ <= 0 || waitpid(worker_, &status, WNOHANG) != worker_) return;
  worker_ = -1;
  state_.worker_pid.store(0);
  on_worker_gone(status);
}

// For kill(2) the id of no worker, -1, is every process there is.
void Keeper::signal_worker(int signal_number) const {
  if (worker_ > 0) kill(worker_, signal_number);
}

void Keeper::on_timer() {
  wake_ns_ = 0;
  if (phase_ == Phase::pausing) {
    start_worker();
  } else if (phase_ == Phase::draining) {
    say(LOG_WARNING, "%s: the worker did not drain in time; killed", state_.mount_point);
    signal_worker(SIGKILL);
  }
}

void Keeper::on_ready() {
  note_served();
  if (!has_ended_ && wants_upgrade_) begin_upgrade();
}

// The worker announced its readiness; it may be gone since.
void Keeper::note_served() {
  phase_ = Phase::serving;
  const bool is_first = !has_served_;
  has_served_ = true;
  if (is_first) raise_readahead();
  write_record();
  if (is_first) {
    give_up_stdio();
    if (!report_ready()) end(kMountFailure);  // who asked for the mount is gone
  }
}

void Keeper::on_worker_gone(int status) {
  wake_ns_ = 0;
  // A worker that is killed after it announced its readiness has served.  An upgrade that waits for
  // one waits for the next.
  if (phase_ == Phase::starting && state_.ready_generation.load() == state_.generation.load())
    note_served();
  if (has_ended_) return;
  const WorkerEnding ending = state_.ending.load();
  if (ending == WorkerEnding::unmounted && has_served_) {
    end(0);
  } else if (!has_served_) {
    on_first_worker_gone(status);
  } else if (phase_ == Phase::draining) {
    state_.last_death.store(LastDeath::planned);
    upgrade();
  } else if (ending == WorkerEnding::drained) {  // someone else's SIGTERM
    state_.last_death.store(LastDeath::planned);
    start_worker();
  } else {
    on_crash(status);
  }
}

void Keeper::on_first_worker_gone(int status) {
  int code = kMountFailure;
  if (WIFSIGNALED(status)) {
    say(LOG_ERR, "%s: the worker was ended by signal %d while it started", state_.mount_point,
        WTERMSIG(status));
  } else if (state_.ending.load() == WorkerEnding::unmounted) {
    say(LOG_ERR, "%s: unmounted before it was ready", state_.mount_point);
  } else if (WEXITSTATUS(status) == kMountUsage || WEXITSTATUS(status) == kMountSystem) {
    code = WEXITSTATUS(status);
  }
  end(code);
}

void Keeper::on_crash(int status) {
  const uint64_t now_ns = monotonic_ns();
  // One that did not get to serve had no request; the judgement on those waits for the next.
  if (state_.ready_generation.load() == state_.generation.load()) {
    const bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    state_.died_ns.store(now_ns);
    state_.last_death.store(is_killed ? LastDeath::killed : LastDeath::crashed);
  }
  const uint64_t deaths = count_death(status, now_ns);
  state_.is_desperate.store(deaths * 10 >= deaths_.size() * 7 ? 1 : 0);
  say(LOG_ERR, "%s: worker %u was ended by %s %d (%llu within a minute)", state_.mount_point,
      state_.generation.load(), WIFSIGNALED(status) ? "signal" : "exit status",
      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
      static_cast<unsigned long long>(deaths));
  if (deaths >= deaths_.size()) {
    say(LOG_CRIT, "%s: giving up; the mount ends, open files fail", state_.mount_point);
    end(kMountFailure);
  } else if (!kernel_resends()) {
    say(LOG_CRIT, "%s: this kernel cannot send requests again (Linux 6.9); the mount ends",
        state_.mount_point);
    end(kMountFailure);
  } else {
    pause_then_start(deaths);
  }
}

// Crashes count for a minute.  Kills count once they have followed each other for a minute without
// a request answered between them: an operator may kill a worker that works all day, and ten times
// a second, which leaves little time for answers; what eats all memory at once, each time, is found
// out all the same.
uint64_t Keeper::count_death(int status, uint64_t now_ns) {
  const uint64_t answered = state_.answered.load();
  const bool was_answered = std::exchange(answered_before_, answered) != answered;
  if (was_answered || now_ns - last_death_ns_ >= kDeathWindowNs) {
    row_began_ns_ = now_ns;
    kills_in_a_row_ = 0;
  }
  last_death_ns_ = now_ns;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
    if (now_ns - row_began_ns_ < state_.kill_patience_ns) return 0;
    return ++kills_in_a_row_ / kKillsPerDeath;
  }
  deaths_[next_death_] = now_ns;
  next_death_ = (next_death_ + 1) % deaths_.size();
  uint64_t deaths = 0;
  for (const uint64_t at_ns : deaths_)
    if (at_ns != 0 && now_ns - at_ns < kDeathWindowNs) deaths++;
  return deaths;
}

// At once at first; from half of what is tolerated on ever slower, so that a trouble of some
// seconds (memory, a full disk) does not use up the minute's deaths.
void Keeper::pause_then_start(uint64_t deaths) {
  const uint64_t free_deaths = deaths_.size() / 2;
  if (deaths <= free_deaths) {
    start_worker();
    return;
  }
  const uint64_t doublings = std::min<uint64_t>(deaths - free_deaths - 1, 10);
  phase_ = Phase::pausing;
  wake_ns_ = monotonic_ns() + std::min(kMaxPauseNs, (100 * kNsPerMs) << doublings);
}

bool Keeper::kernel_resends() const {
  if (state_.init_request_bytes.load() < sizeof(uapi::InHeader) + sizeof(uapi::InitIn))
    return false;
  uapi::InitIn request;
  std::memcpy(&request, state_.init_request + sizeof(uapi::InHeader), sizeof request);
  return (request.flags & uapi::kInitExt) != 0 && (request.flags2 & uapi::kInit2HasResend) != 0;
}

void Keeper::begin_upgrade() {
  if (phase_ == Phase::starting) {
    wants_upgrade_ = true;  // as soon as that worker serves
    return;
  }
  if (phase_ == Phase::draining) return;
  wants_upgrade_ = false;
  if (!kernel_resends()) {
    say(LOG_ERR, "%s: this kernel cannot send requests again (Linux 6.9); not upgraded",
        state_.mount_point);
    return;
  }
  if (phase_ == Phase::pausing) {
    upgrade();
    return;
  }
  phase_ = Phase::draining;
  wake_ns_ = monotonic_ns() + kDrainNs;
  signal_worker(SIGTERM);
}

// Nothing comes back from a program that starts and then ends: so it is tried first.
void Keeper::upgrade() {
  if (process_.can_run(state_.program, state_.oom_score_adj)) {
    process_.replace_keeper(state_.program);
    say(LOG_ERR, "%s: cannot execute %s: %s; the old program serves on", state_.mount_point,
        state_.program, strerror(errno));
  } else {
    say(LOG_ERR, "%s: %s --version does not work; the old program serves on", state_.mount_point,
        state_.program);
  }
  start_worker();
}

void Keeper::begin_unmount() {
  if (is_unmounting_ || !has_served_) {
    end(has_served_ ? 0 : kMountFailure);
    return;
  }
  is_unmounting_ = true;
  const std::optional<std::string> mount_point = our_mount_point();
  // Detached already, covered by another mount, or in other namespaces only.
  if (!mount_point)
    say(LOG_WARNING, "%s: not to be unmounted from here; told again, it ends all the same",
        state_.mount_point);
  // The worker serves on until the kernel tells it that nobody is left.
  else if (!unmount(*mount_point, false))
    detach();
}

// Where it is now: it may have been moved, or a directory above it renamed.
std::optional<std::string> Keeper::our_mount_point() const {
  const Result<std::vector<MountEntry>> mounts = read_mountinfo();
  if (!mounts) return std::nullopt;
  std::optional<std::string> found;
  for (const MountEntry& entry : *mounts) {
    if (entry.device_major != state_.device_major || entry.device_minor != state_.device_minor ||
        find_top_mount(*mounts, entry.mount_point) != &entry)
      continue;
    if (!found || entry.mount_point == state_.mount_point) found = entry.mount_point;
  }
  return found;
}

void Keeper::detach() {
  const std::optional<std::string> mount_point = our_mount_point();
  if (!mount_point) return;
  const Status done = unmount(*mount_point, true);
  if (!done) say(LOG_ERR, "%s", done.error().message.c_str());
}

void Keeper::end(int code) {
  if (has_ended_) return;
  has_ended_ = true;
  exit_code_ = code;
  // Told that the mount is gone, the worker may take a while to leave; what is there by now is
  // somebody else's, perhaps with our device number, which the kernel gives out again.
  if (state_.ending.load() != WorkerEnding::unmounted) {
    if (const int failed = abort_connection(fuse_.fd(), state_.device_minor); failed != 0)
      say(LOG_ERR, "%s: ending the connection: %s", state_.mount_point, strerror(failed));
    detach();
  }
  signal_worker(SIGKILL);
  await_worker();
  unlink(state_.record_path);
}

// One that does not leave in time is left to init.
void Keeper::await_worker() {
  const uint64_t until_ns = monotonic_ns() + kReapNs;
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  const timespec pause{0, 100 * kNsPerMs};
  while (worker_ > 0 && waitpid(worker_, nullptr, WNOHANG) == 0 && monotonic_ns() < until_ns)
    sigtimedwait(&child, nullptr, &pause);
}

// Only root may; without it sequential reads are half as fast.
void Keeper::raise_readahead() {
  if (geteuid() != 0 || state_.read_ahead_kb == 0) return;
  char path[96];
  snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", state_.device_major,
           state_.device_minor);
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || dprintf(fd, "%u", state_.read_ahead_kb) < 0)
    say(LOG_NOTICE, "%s: %s; readahead stays as it is", path, strerror(errno));
  if (fd >= 0) close(fd);
}

void Keeper::prepare_record() {
  if (state_.record_path[0] == 0) return;
  record_temporary_ = cat(state_.record_path, ".new");
  const ProcessIdentity own = ProcessIdentity::own();
  record_tail_ = cat("keeper ", own.pid, "\nstarted_at ", own.started_at, "\npid_namespace ",
                     own.pid_namespace, "\nmajor ", state_.device_major, "\nminor ",
                     state_.device_minor, "\nsource ", escape_octal(state_.source), "\nstore ",
                     escape_octal(state_.store), "\nmount_point ", escape_octal(state_.mount_point),
                     "\nprogram ", escape_octal(state_.program), "\n");
  record_text_.resize(record_tail_.size() + 256);
}

// As format_record(), but in place.
void Keeper::write_record() {
  if (record_text_.empty()) return;
  const int bytes = snprintf(
      record_text_.data(), record_text_.size(), "worker %d\ngeneration %u\nupgrades %u\n%s",
      std::max(worker_, 0), state_.generation.load(), state_.upgrades.load(), record_tail_.c_str());
  const int fd =
      open(record_temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  const bool is_written =
      fd >= 0 && write(fd, record_text_.data(), static_cast<size_t>(bytes)) == bytes;
  if (fd >= 0) close(fd);
  if (!is_written || rename(record_temporary_.c_str(), state_.record_path) != 0)
    say(LOG_WARNING, "%s: %s; cake ps will not show the mount", state_.record_path,
        strerror(errno));
}

// One byte; an end of file without it means failure, whose status is the keeper's own.
bool Keeper::report_ready() {
  if (report_fd_ < 0) return true;
  const bool is_told = write(report_fd_, "", 1) == 1;
  close(report_fd_);
  return is_told;
}

void Keeper::give_up_stdio() {
  if (state_.is_background == 0) return;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int fd : {0, 1, 2}) dup2(null, fd);
  if (null > 2) close(null);
  is_quiet_ = true;
}

// A line within the stack; glibc's syslog allocates only for what is longer than 1 KiB.
void Keeper::say(int priority, const char* format, ...) {
  char line[900];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (is_quiet_)
    syslog(LOG_DAEMON | priority, "%s", line);
  else
    dprintf(2, "cake: %s\n", line);
}

bool set_text(char (&field)[4096], const std::string& text) {
  if (text.size() >= sizeof field) return false;
  std::memcpy(field, text.c_str(), text.size() + 1);
  return true;
}

int fail(int code, const std::string& message) {
  dprintf(2, "cake: %s\n", message.c_str());
  return code;
}

std::string own_program() {
  char path[PATH_MAX];
  const ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 1);
  return bytes > 0 ? std::string(path, static_cast<size_t>(bytes)) : std::string();
}

// The mount's facts, for this keeper and those after it.
Status describe(KeeperState& state, const KeeperOptions& options) {
  const MountOptions& mount = options.mount;
  std::string record_path;
  const Result<std::string> directory = make_runtime_directory();
  if (directory)
    // Containers may share the directory, and have the same numbers.
    record_path = cat(*directory, "/", getpid(), "-", ProcessIdentity::own().started_at, ".mount");
  else
    dprintf(2, "cake: %s; cake ps will not show the mount\n", directory.error().message.c_str());
  // Listing removes what killed keepers left.
  if (const auto listed = list_mount_records(); !listed)
    dprintf(2, "cake: %s\n", listed.error().message.c_str());
  if (!set_text(state.source, mount.source) || !set_text(state.store, mount.store) ||
      !set_text(state.mount_point, mount.mount_point) ||
      !set_text(state.record_path, record_path) ||
      !set_text(state.program, options.program.empty() ? own_program() : options.program))
    return Error{Errc::invalid, "a path or source is longer than 4095 bytes"};
  state.is_background = options.is_foreground ? 0 : 1;
  state.read_ahead_kb = mount.read_ahead_kb;
  state.max_deaths = std::clamp(options.max_deaths, 1u, 100'000u);
  state.kill_patience_ns = nanoseconds(options.kill_patience);
  state.oom_score_adj = get_oom_score_adj();
  return {};
}

Status note_device(KeeperState& state) {
  const std::vector<MountEntry> mounts = CAKE_TRY(read_mountinfo());
  const MountEntry* top = find_top_mount(mounts, state.mount_point);
  if (top == nullptr || top->type != kMountType)
    return Error{Errc::io, cat(state.mount_point, ": mounted, but not to be seen")};
  state.device_major = top->device_major;
  state.device_minor = top->device_minor;
  return {};
}

int keep(const KeeperOptions& options, int report_fd) {
  Result<KeeperMemory> memory = KeeperMemory::create();
  if (!memory) return fail(kMountSystem, memory.error().message);
  if (const Status done = describe(**memory, options); !done)
    return fail(kMountUsage, done.error().message);
  Result<File> fuse = mount_cakefs(options.mount);
  if (!fuse) return fail(kMountFailure, fuse.error().message);
  if (const Status done = note_device(**memory); !done) {
    if (const Status undone = unmount(options.mount.mount_point, true); !undone)
      dprintf(2, "cake: %s\n", undone.error().message.c_str());
    return fail(kMountSystem, done.error().message);
  }
  if (geteuid() == 0) set_oom_score_adj(-1000);
  Keeper keeper(std::move(*memory), std::move(*fuse), options.worker, options.arguments, report_fd);
  return keeper.run();
}

// In the child: a daemon whose only tie to the caller is stdio and the report pipe, moved to 3.
[[noreturn]] void keep_in_background(const KeeperOptions& options, int report_fd) {
  setsid();
  if (chdir("/") != 0) _exit(fail(kMountSystem, "cannot change to /"));
  umask(022);
  if (report_fd != 3 && dup2(report_fd, 3) != 3) _exit(fail(kMountSystem, "dup2 failed"));
  fcntl(3, F_SETFD, FD_CLOEXEC);
  syscall(SYS_close_range, 4u, ~0u, 0u);
  _exit(keep(options, 3));
}

int await_report(int fd, pid_t keeper) {
  char byte = 0;
  ssize_t got = 0;
  do got = read(fd, &byte, 1);
  while (got < 0 && errno == EINTR);
  if (got == 1) return 0;
  int status = 0;
  while (waitpid(keeper, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
  return fail(kMountFailure, "the keeper ended unexpectedly");
}

}  // namespace

int run_keeper(const KeeperOptions& given) {
  KeeperOptions options = given;
  Result<std::string> mount_point = prepare_mount_point(given.mount.mount_point);
  if (!mount_point) return fail(kMountFailure, mount_point.error().message);
  options.mount.mount_point = std::move(*mount_point);
  fflush(nullptr);  // or each process would write what is buffered
  if (options.is_foreground) return keep(options, -1);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail(kMountSystem, "no pipe");
  const pid_t pid = fork();
  if (pid < 0) return fail(kMountSystem, "no new process");
  if (pid == 0) keep_in_background(options, ends[1]);
  const File reading(ends[0], "report");
  close(ends[1]);
  return await_report(reading.fd(), pid);
}

int resume_keeper(WorkerMain worker, const std::vector<std::string>& arguments) {
  const Result<KeeperDescriptors> descriptors = inherited_descriptors();
  if (!descriptors) return fail(kMountUsage, descriptors.error().message);
  for (const int fd : {descriptors->fuse, descriptors->memory}) fcntl(fd, F_SETFD, FD_CLOEXEC);
  Result<KeeperMemory> memory = KeeperMemory::adopt(descriptors->memory, true);
  if (!memory) {
    syslog(LOG_DAEMON | LOG_CRIT, "%s", memory.error().message.c_str());
    return kMountSystem;
  }
  (*memory)->upgrades.fetch_add(1);
  if ((*memory)->kill_patience_ns == 0)
    (*memory)->kill_patience_ns = nanoseconds(KeeperOptions().kill_patience);
  Keeper keeper(std::move(*memory), File(descriptors->fuse, "/dev/fuse"), worker, arguments, -1);
  return keeper.run();
}

}  // namespace cake
