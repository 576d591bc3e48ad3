// What the keeper promises, on real mounts.  A SIGBUS or a hang is a failure of these tests too.
#include "fs/keeper.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "fs/process_signals.h"
#include "store/base/bytes.h"
#include "store/base/file.h"
#include "tests/mount/pattern_mount.h"
#include "tests/programs/pattern.h"

namespace cake {
namespace {

class KeeperMount : public testing::Test {
 protected:
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  }
};

bool is_gone(pid_t pid) {
  return pid > 0 && wait_until_true([=] { return !is_running(pid); });
}

// Whether a thread of the process, or a child, is in a wait that no signal ends.
bool waits_deaf(pid_t pid) {
  const std::filesystem::path tasks = cat("/proc/", pid, "/task");
  std::string stats;
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    stats += read_text_file(task.path() / "stat", 4096).value();
    std::istringstream children(read_text_file(task.path() / "children", 4096).value());
    for (std::string child; children >> child;)
      stats += read_text_file(cat("/proc/", child, "/stat"), 4096).value();
  }
  return stats.find(") D ") != std::string::npos;
}

// One page at `offset`, O_DIRECT unless told otherwise; 0 or errno.  A wrong byte is EBADMSG.
int read_page(const std::string& path, uint64_t offset, int flags = O_DIRECT) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  if (fd < 0) return errno;
  alignas(4096) unsigned char page[4096];
  const ssize_t got = pread(fd, page, sizeof page, static_cast<off_t>(offset));
  const int failed = got < 0 ? errno : 0;
  close(fd);
  if (failed != 0) return failed;
  return got == sizeof page && count_wrong_bytes(page, sizeof page, offset) == 0 ? 0 : EBADMSG;
}

TEST_F(KeeperMount, ServesWhenMountReturns) {
  PatternMount mount;
  ASSERT_EQ(mount.exit_status(), 0) << mount.error_output();
  struct stat info {};
  ASSERT_EQ(stat(mount.path("f").c_str(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), kPatternBytes);
  EXPECT_EQ(read_page(mount.path("f"), kMiB), 0);
  EXPECT_EQ(mount.record().source, "hf:test/pattern");
}

TEST_F(KeeperMount, RaisesReadahead) {
  PatternMount mount;
  const MountRecord record = mount.record();
  const auto kb = read_text_file(
      cat("/sys/class/bdi/", record.device_major, ":", record.device_minor, "/read_ahead_kb"), 100);
  ASSERT_TRUE(kb);
  EXPECT_EQ(*kb, "1024\n");
}

TEST_F(KeeperMount, WorkerKilledFiftyTimesIsNotNoticed) {
  PatternMount mount({"deaths=1000"});
  ASSERT_EQ(mount.exit_status(), 0) << mount.error_output();
  Readers readers(mount.path("f"), 8);
  for (int i = 0; i < 50; i++) {
    const uint64_t before = readers.read_bytes();
    mount.kill_worker();
    // Reads got through this worker, so the next kill meets new ones.
    ASSERT_TRUE(wait_until_true([&] { return readers.read_bytes() > before + 8 * kMiB; }));
  }
  readers.stop();
  EXPECT_EQ(readers.errors(), 0u);
  EXPECT_EQ(readers.wrong_bytes(), 0u);
  EXPECT_EQ(mount.attribute("user.generation"), 51);
}

TEST_F(KeeperMount, UpgradeIsNotNoticed) {
  PatternMount mount;
  Readers readers(mount.path("f"), 8);
  for (unsigned i = 1; i <= 10; i++) {
    const Status done = upgrade_mount(mount.record(), Deadline::after(Millis(20'000)));
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_EQ(mount.record().upgrades, i);
  }
  readers.stop();
  EXPECT_EQ(readers.errors(), 0u);
  EXPECT_EQ(readers.wrong_bytes(), 0u);
  EXPECT_GT(readers.read_bytes(), 0u);
}

// The file is replaced by rename, as a package manager does, while the old one runs.
TEST_F(KeeperMount, UpgradeExecutesTheInstalledProgram) {
  const std::filesystem::path folder = "/tmp/cakefs-upgrade-" + std::to_string(getpid());
  std::filesystem::create_directory(folder);
  const std::string program = folder / "installed";
  std::filesystem::copy_file(pattern_mount_program(), program);
  PatternMount mount({"program=" + program});
  std::filesystem::copy_file(pattern_mount_program(), folder / "new");
  std::filesystem::rename(folder / "new", program);
  ASSERT_TRUE(upgrade_mount(mount.record(), Deadline::after(Millis(20'000))));
  const MountRecord record = mount.record();
  for (const pid_t pid : {record.keeper.pid, record.worker_pid})
    EXPECT_EQ(std::filesystem::read_symlink(cat("/proc/", pid, "/exe")), program);
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);
  std::filesystem::remove_all(folder);
}

TEST_F(KeeperMount, UpgradeToAMissingProgramServesOn) {
  PatternMount mount({"program=/nonexistent/cake"});
  const Status done = upgrade_mount(mount.record(), Deadline::after(Millis(20'000)));
  ASSERT_FALSE(done);
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);
}

// Half installed, or without one of its libraries: it can be executed, and ends at once.
TEST_F(KeeperMount, UpgradeToAFailingProgramServesOn) {
  const std::string program = "/tmp/cakefs-failing-" + std::to_string(getpid());
  std::ofstream(program) << "#!/bin/sh\nexit 1\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  PatternMount mount({"program=" + program});
  EXPECT_FALSE(upgrade_mount(mount.record(), Deadline::after(Millis(20'000))));
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);
  unlink(program.c_str());
}

TEST_F(KeeperMount, ParkedReadsSurviveAKillAndAnUpgrade) {
  constexpr unsigned kReads = 300;
  PatternMount mount({"gate=/tmp/cakefs-gate-" + std::to_string(getpid())});
  const std::string gate = "/tmp/cakefs-gate-" + std::to_string(getpid());
  std::atomic<unsigned> good{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kReads; i++)
    threads.emplace_back([&, i] { good += read_page(mount.path("gated"), i * kMiB / 2) == 0; });
  const auto all_parked = [&] { return mount.attribute("user.parked") == kReads; };
  EXPECT_TRUE(wait_until_true(all_parked));
  mount.kill_worker();
  EXPECT_TRUE(wait_until_true(all_parked));
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);  // and others are served meanwhile
  EXPECT_TRUE(upgrade_mount(mount.record(), Deadline::after(Millis(20'000))));
  EXPECT_TRUE(wait_until_true(all_parked));
  // Planned ends are held against nobody: many more than kPoisonTimes.
  for (int i = 0; i < 5; i++)
    EXPECT_TRUE(upgrade_mount(mount.record(), Deadline::after(Millis(20'000))));
  std::ofstream(gate).close();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kReads);
  unlink(gate.c_str());
}

// The kernel sends no INTERRUPT for it and does not free it; what a sweep looks at does show.
TEST_F(KeeperMount, KilledReaderOfAParkedReadShowsItsSignal) {
  PatternMount mount;
  const pid_t reader = fork();
  if (reader == 0) _exit(read_page(mount.path("gated"), 0));
  ASSERT_TRUE(wait_until_true([&] { return mount.attribute("user.parked") == 1; }));
  EXPECT_FALSE(has_fatal_signal_pending(reader));
  kill(reader, SIGKILL);
  EXPECT_TRUE(has_fatal_signal_pending(reader));
  EXPECT_TRUE(is_running(reader));  // the sweep's answer is what frees it
  // The first unmounts lazily, which that read outlasts; the second ends it with the connection.
  const pid_t keeper = mount.record().keeper.pid;
  kill(keeper, SIGTERM);
  EXPECT_TRUE(wait_until_true([&] { return !mount.is_mounted(); }));
  EXPECT_TRUE(is_running(keeper));
  kill(keeper, SIGTERM);
  EXPECT_TRUE(wait_until_true([&] { return waitpid(reader, nullptr, WNOHANG) == reader; }));
}

// Who drops a file's pages waits in the kernel, deaf to signals, for the one that is being read.
// As a thread of the worker it kept the worker from being reaped, the next from being started, and
// so the page from being read.
TEST_F(KeeperMount, WorkerThatDropsPagesCanBeReplaced) {
  const std::string gate = "/tmp/cakefs-gate-" + std::to_string(getpid());
  PatternMount mount({"gate=" + gate});
  std::atomic<int> failed{-1};
  std::thread reader([&] { failed = read_page(mount.path("gated"), kMiB, 0); });
  EXPECT_TRUE(wait_until_true([&] { return mount.attribute("user.parked") > 0; }));
  const MountRecord first = mount.record();
  mount.attribute("user.drop");
  EXPECT_TRUE(wait_until_true([&] { return waits_deaf(first.worker_pid); }));
  mount.kill_worker();
  EXPECT_TRUE(wait_until_true([&] { return mount.attribute("user.parked") > 0; }));
  mount.attribute("user.drop");
  EXPECT_TRUE(upgrade_mount(mount.record(), Deadline::after(Millis(20'000))));
  EXPECT_EQ(mount.record().generation, first.generation + 2);
  std::ofstream(gate).close();
  reader.join();
  EXPECT_EQ(failed, 0);
  unlink(gate.c_str());
}

// Nobody answers any more what it waits for, and it holds the connection too.
TEST_F(KeeperMount, EndOfAMountIsNotHeldUpByWhoDropsPages) {
  PatternMount mount({"deaths=1"});
  const MountRecord record = mount.record();
  std::thread reader([&] { read_page(mount.path("gated"), kMiB, 0); });
  EXPECT_TRUE(wait_until_true([&] { return mount.attribute("user.parked") > 0; }));
  mount.attribute("user.drop");
  EXPECT_TRUE(wait_until_true([&] { return waits_deaf(record.worker_pid); }));
  kill(record.worker_pid, SIGABRT);
  EXPECT_TRUE(is_gone(record.keeper.pid));
  EXPECT_FALSE(mount.is_mounted());
  reader.join();
}

TEST_F(KeeperMount, PoisonRequestGetsAnErrorAndTheMountGoesOn) {
  PatternMount mount({cat("signal=", SIGSEGV)});
  EXPECT_EQ(read_page(mount.path("poison"), 0), EIO);
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);
  EXPECT_EQ(mount.attribute("user.generation"), 4);  // killed, and killed by being sent again
}

// It shares every death with the poison; an error would be SIGBUS for a mapping.
TEST_F(KeeperMount, PoisonRequestTakesNoOtherAlong) {
  constexpr unsigned kReads = 100;
  const std::string gate = "/tmp/cakefs-gate-" + std::to_string(getpid());
  PatternMount mount({cat("signal=", SIGABRT), "gate=" + gate});
  std::atomic<unsigned> good{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kReads; i++)
    threads.emplace_back([&, i] { good += read_page(mount.path("gated"), i * kMiB) == 0; });
  EXPECT_TRUE(wait_until_true([&] { return mount.attribute("user.parked") == kReads; }));
  EXPECT_EQ(read_page(mount.path("poison"), 0), EIO);
  std::ofstream(gate).close();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kReads);
  unlink(gate.c_str());
}

// One that is ended by SIGKILL (no memory) is told from an operator's kills by insistence only.
TEST_F(KeeperMount, PoisonRequestByMemoryDoesNotEndTheMount) {
  PatternMount mount({cat("signal=", SIGKILL), "patience_ms=300"});
  EXPECT_EQ(read_page(mount.path("poison"), 0), EIO);
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);
}

TEST_F(KeeperMount, TooManyCrashesEndTheMount) {
  PatternMount mount({"deaths=3"});
  const MountRecord record = mount.record();
  mount.end_worker(SIGABRT);
  mount.end_worker(SIGABRT);
  kill(mount.record().worker_pid, SIGABRT);
  EXPECT_TRUE(is_gone(record.keeper.pid));
  EXPECT_FALSE(mount.is_mounted());
}

// Five kills without an answer between them weigh as much as a crash, once patience is over.
TEST_F(KeeperMount, TooManyKillsInARowEndTheMount) {
  PatternMount mount({"deaths=1", "patience_ms=0"});
  const MountRecord record = mount.record();
  for (int i = 0; i < 4; i++) mount.kill_worker();
  kill(mount.record().worker_pid, SIGKILL);
  EXPECT_TRUE(is_gone(record.keeper.pid));
  EXPECT_FALSE(mount.is_mounted());
}

// Ten a second leave little time for answers: no reader gets an error for it.
TEST_F(KeeperMount, KillsInARowAreBornePatiently) {
  const std::string gate = "/tmp/cakefs-gate-" + std::to_string(getpid());
  PatternMount mount({"gate=" + gate});
  int failed = -1;
  std::thread reader([&] { failed = read_page(mount.path("gated"), 0); });
  EXPECT_TRUE(wait_until_true([&] { return mount.attribute("user.parked") == 1; }));
  for (int i = 0; i < 60; i++) mount.kill_worker();
  std::ofstream(gate).close();
  reader.join();
  EXPECT_EQ(failed, 0);
  unlink(gate.c_str());
}

// A keeper that still tidies up has a record too, and the kernel gave its device number to another.
TEST_F(KeeperMount, RecordOfAnEarlierMountIsNotTakenForIt) {
  PatternMount mount;
  const MountRecord record = mount.record();
  MountRecord earlier = record;
  earlier.keeper = ProcessIdentity::own();
  earlier.mount_point = "/earlier";
  const std::string path = cat(runtime_directory(), "/0.mount");
  ASSERT_TRUE(write_file_atomically(path, as_bytes(format_record(earlier))));
  const timespec times[] = {{1, 0}, {1, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ(mount.record().keeper.pid, record.keeper.pid);
  unlink(path.c_str());
}

TEST_F(KeeperMount, UmountLeavesNoProcess) {
  PatternMount mount;
  const MountRecord record = mount.record();
  ASSERT_TRUE(end_mount(mount.mount_point(), false, Deadline::after(Millis(20'000))));
  EXPECT_TRUE(is_gone(record.keeper.pid));
  EXPECT_TRUE(is_gone(record.worker_pid));
  EXPECT_FALSE(path_exists(record.path));
}

TEST_F(KeeperMount, LazyUmountServesUntilTheLastClose) {
  PatternMount mount;
  const MountRecord record = mount.record();
  const int fd = open(mount.path("f").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(umount2(mount.mount_point().c_str(), MNT_DETACH), 0);
  // A crash now is still nobody's business.
  kill(record.worker_pid, SIGKILL);
  unsigned char bytes[4096];
  ASSERT_EQ(pread(fd, bytes, sizeof bytes, 77 * kMiB), static_cast<ssize_t>(sizeof bytes));
  EXPECT_EQ(count_wrong_bytes(bytes, sizeof bytes, 77 * kMiB), 0u);
  EXPECT_EQ(kill(record.keeper.pid, 0), 0);
  close(fd);
  EXPECT_TRUE(is_gone(record.keeper.pid));
}

TEST_F(KeeperMount, TerminatedKeeperUnmounts) {
  PatternMount mount;
  const MountRecord record = mount.record();
  kill(record.keeper.pid, SIGTERM);
  EXPECT_TRUE(is_gone(record.keeper.pid));
  EXPECT_FALSE(mount.is_mounted());
}

TEST_F(KeeperMount, WorkerDiesWithItsKeeper) {
  PatternMount mount;
  const MountRecord record = mount.record();
  kill(record.keeper.pid, SIGKILL);
  EXPECT_TRUE(is_gone(record.worker_pid));
}

TEST_F(KeeperMount, StaleMountPointIsCleanedUpAndMountedOver) {
  PatternMount mount;
  const MountRecord record = mount.record();
  kill(record.keeper.pid, SIGKILL);
  ASSERT_TRUE(is_gone(record.worker_pid));
  struct stat info {};
  ASSERT_TRUE(wait_until_true(
      [&] { return stat(mount.mount_point().c_str(), &info) != 0 && errno == ENOTCONN; }));
  std::string said;
  EXPECT_EQ(run_command({pattern_mount_program(), mount.mount_point() + "/"}, &said), 0) << said;
  EXPECT_EQ(read_page(mount.path("f"), 0), 0);
  EXPECT_FALSE(path_exists(record.path));
}

TEST_F(KeeperMount, FailingWorkerUndoesTheMountAndPassesItsStatus) {
  for (const int code : {1, 2, 32}) {
    PatternMount mount({cat("fail=", code)});
    EXPECT_EQ(mount.exit_status(), code);
    EXPECT_NE(mount.error_output().find("told to fail"), std::string::npos);
    EXPECT_FALSE(mount.is_mounted());
  }
}

TEST_F(KeeperMount, MissingMountPointIsAFailure) {
  std::string said;
  EXPECT_EQ(run_command({pattern_mount_program(), "/nonexistent/dir"}, &said), kMountFailure);
  EXPECT_NE(said.find("/nonexistent/dir"), std::string::npos);
}

TEST_F(KeeperMount, StrangeNamesAreMounted) {
  PatternMount mount({"source=hf:a b\\c,d"});
  ASSERT_EQ(mount.exit_status(), 0) << mount.error_output();
  EXPECT_EQ(mount.record().source, "hf:a b\\c,d");
}

// The next worker is asked to drain.  The id of no worker, -1, is to kill(2) every process there
// is: hence in a namespace of processes, with one in it that must not be hit.
TEST_F(KeeperMount, UpgradeOfAWorkerThatDiesReadySignalsNobodyElse) {
  const std::string script = R"sh(
    set -e
    d=$(mktemp -d /tmp/cakefs-ready-XXXXXX)
    trap 'umount -l "$d/mnt" 2>/dev/null || true; rm -rf --one-file-system "$d"' EXIT
    mount -t tmpfs none /run && mkdir "$d/mnt"
    "$1" "$d/mnt" dies_ready=2 gate="$d/gate"
    sleep 100 &
    bystander=$!
    record=$(echo /run/cakefs/*.mount)
    field() { awk -v key="$1" '$1 == key { print $2 }' "$record"; }
    keeper=$(field keeper)
    kill -9 "$(field worker)"
    until pgrep -P "$keeper" -x cake-worker > /dev/null; do :; done
    kill -HUP "$keeper"
    touch "$d/gate"
    for i in $(seq 2000); do
      test "$(field upgrades)" = 1 && test "$(field generation)" -gt 3 && break
      kill -0 "$bystander" "$keeper"
      sleep 0.01
    done
    test "$(field upgrades)" = 1
    kill -0 "$bystander"
    cksum < "$d/mnt/f" > /dev/null
    umount "$d/mnt"
  )sh";
  std::string said;
  EXPECT_EQ(run_command({"unshare", "-m", "-p", "-f", "--mount-proc", "timeout", "50", "bash", "-c",
                         script, "bash", pattern_mount_program()},
                        &said),
            0)
      << said;
}

TEST_F(KeeperMount, PassthroughSurvivesAKill) {
  const std::string backing = "/dev/shm/cakefs-backing-" + std::to_string(getpid());
  std::vector<char> bytes(8 * kMiB);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<char>(pattern_at(i));
  std::ofstream(backing, std::ios::binary).write(bytes.data(), static_cast<long>(bytes.size()));
  PatternMount mount({"backing=" + backing});
  const int first = open(mount.path("through").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(first, 0);
  unsigned char page[4096];
  ASSERT_EQ(pread(first, page, sizeof page, 5000), static_cast<ssize_t>(sizeof page));
  EXPECT_EQ(count_wrong_bytes(page, sizeof page, 5000), 0u);
  mount.kill_worker();
  // The new worker answers with the mode and the id that the last one gave.
  const int second = open(mount.path("through").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_GE(second, 0);
  EXPECT_EQ(pread(second, page, sizeof page, 7000), static_cast<ssize_t>(sizeof page));
  EXPECT_EQ(count_wrong_bytes(page, sizeof page, 7000), 0u);
  close(first);
  close(second);
  unlink(backing.c_str());
}

// As nobody, in a mount namespace whose /dev/fuse is open to everyone.
TEST_F(KeeperMount, OrdinaryUserMountsThroughFusermount) {
  const std::string script = R"sh(
    set -e
    d=$(mktemp -d /tmp/cakefs-user-XXXXXX)
    trap 'umount "$d/mnt" 2>/dev/null || true; rm -rf "$d"' EXIT
    mknod "$d/fuse" c 10 229 && chmod 666 "$d/fuse" && mount --bind "$d/fuse" /dev/fuse
    mkdir "$d/mnt" "$d/run" && chown 65534:65534 "$d" "$d/mnt" "$d/run"
    cp "$1" "$d/program"
    user() { setpriv --reuid=65534 --regid=65534 --clear-groups \
             env XDG_RUNTIME_DIR="$d/run" PATH="$PATH" "$@"; }
    user "$d/program" "$d/mnt" "source=hf:a,b\\c d"
    grep -q ' - fuse.cakefs hf:a,b\\134c\\040d ro,user_id=65534' /proc/self/mountinfo
    record=$(echo "$d"/run/cakefs/*.mount)
    worker=$(awk '/^worker/ { print $2 }' "$record")
    keeper=$(awk '/^keeper/ { print $2 }' "$record")
    user sh -c 'cksum < "$1/f"' sh "$d/mnt" > "$d/sum" &
    kill -9 "$worker"
    wait $!
    user sh -c 'cksum < "$1/f"' sh "$d/mnt" | cmp - "$d/sum"
    user fusermount3 -u "$d/mnt"
    timeout 20 tail --pid="$keeper" -f /dev/null
  )sh";
  std::string said;
  EXPECT_EQ(
      run_command({"unshare", "-m", "bash", "-c", script, "bash", pattern_mount_program()}, &said),
      0)
      << said;
}

}  // namespace
}  // namespace cake
