#include "tests/store/write_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>

#include "store/base/file.h"
#include "tests/store/failing_calls.h"
#include "tests/support/sanitized.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

using Kind = WriteOp::Kind;

std::atomic<bool> g_records{false};
std::mutex g_mutex;
std::string* g_folder = nullptr;  // these two live as long as the process
std::vector<WriteOp>* g_ops = nullptr;

bool is_of_interest(const std::string& name) {
  // Locks and shared memory say nothing after a reboot.
  return !name.empty() && !name.ends_with("-shm") && !name.ends_with(".lock") &&
         !name.starts_with("leases/") && name != "claims";
}

// "" when it is not below the folder.
std::string relative(const std::string& path) {
  if (g_folder == nullptr || !path.starts_with(*g_folder + "/")) return "";
  return path.substr(g_folder->size() + 1);
}

[[maybe_unused]] std::string name_of(int fd) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(link.c_str(), path, sizeof path);
  return length > 0 ? relative(std::string(path, static_cast<size_t>(length))) : "";
}

// Before the call is made, under the lock, so that the log's order is one that can have happened.
[[maybe_unused]] void note(Kind kind, const std::string& name, uint64_t offset, uint64_t length,
                           const void* bytes = nullptr, const std::string& to = "") {
  if (kind == Kind::sync ? name.empty() && to.empty() : !is_of_interest(name)) return;
  WriteOp op{kind, name, to, offset, length, {}};
  if (bytes != nullptr)
    op.bytes.assign(static_cast<const std::byte*>(bytes),
                    static_cast<const std::byte*>(bytes) + length);
  g_ops->push_back(std::move(op));
}

}  // namespace

bool WriteLog::is_available() {
#ifdef CAKE_SANITIZED
  return false;
#else
  return true;
#endif
}

void WriteLog::start(const std::string& folder) {
  const std::lock_guard lock(g_mutex);
  g_folder = new std::string(folder);
  g_ops = new std::vector<WriteOp>();
  g_records = true;
}

std::vector<WriteOp> WriteLog::stop() {
  g_records = false;
  const std::lock_guard lock(g_mutex);
  return std::move(*g_ops);
}

size_t WriteLog::size() {
  const std::lock_guard lock(g_mutex);
  return g_ops->size();
}

// --- Calls that fail ---

struct FailingCalls::Rule {
  Call call;
  std::string suffix;
  int error_number = 0;
  std::optional<uint64_t> offset;
};

namespace {

std::atomic<size_t> g_rule_count{0};
std::mutex g_rule_mutex;
std::vector<FailingCalls::Rule*>& rules() {
  static auto* const all = new std::vector<FailingCalls::Rule*>();
  return *all;
}

// Whether it is to fail; errno says with what.
[[maybe_unused]] bool must_fail(FailingCalls::Call call, int fd, off_t offset = 0,
                                size_t count = 0) {
  if (g_rule_count == 0) return false;
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(link.c_str(), path, sizeof path);
  if (length <= 0) return false;
  const std::string name(path, static_cast<size_t>(length));
  const std::lock_guard lock(g_rule_mutex);
  for (const FailingCalls::Rule* rule : rules()) {
    if (rule->call != call || !name.ends_with(rule->suffix)) continue;
    const auto from = static_cast<uint64_t>(offset);
    if (rule->offset && (*rule->offset < from || *rule->offset >= from + count)) continue;
    errno = rule->error_number;
    return true;
  }
  return false;
}

}  // namespace

FailingCalls::FailingCalls(Call call, std::string suffix, int error_number)
    : rule_(new Rule{call, std::move(suffix), error_number, std::nullopt}) {
  const std::lock_guard lock(g_rule_mutex);
  rules().push_back(rule_);
  g_rule_count++;
}

FailingCalls::~FailingCalls() {
  const std::lock_guard lock(g_rule_mutex);
  std::erase(rules(), rule_);
  g_rule_count--;
  delete rule_;
}

FailingCalls& FailingCalls::at(uint64_t offset) {
  const std::lock_guard lock(g_rule_mutex);
  rule_->offset = offset;
  return *this;
}

// --- What is left ---

namespace {

void apply_write(Buffer& file, uint64_t offset, ByteSpan bytes) {
  if (bytes.empty()) return;
  if (file.size() < offset + bytes.size()) file.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<ptrdiff_t>(offset));
}

bool is_data(const WriteOp& op) {
  return op.kind == Kind::write;
}

}  // namespace

DiskState disk_after_power_loss(const std::vector<WriteOp>& ops, size_t count,
                                std::mt19937_64& random) {
  count = std::min(count, ops.size());
  // Where each file was synced last, and anything at all.
  std::map<std::string, size_t> synced;
  size_t last_sync = 0;
  for (size_t i = 0; i < count; i++) {
    if (ops[i].kind == Kind::sync) {
      synced[ops[i].path] = i;
      last_sync = i;
    }
    // A renamed file's data is as durable as it was.
    if (ops[i].kind == Kind::rename && synced.contains(ops[i].path))
      synced[ops[i].to] = synced[ops[i].path];
  }
  const size_t metadata_end = last_sync + random() % (count - last_sync + 1);
  DiskState state;
  std::map<std::string, std::string> renamed;  // names whose rename was lost
  for (size_t i = 0; i < count; i++) {
    const WriteOp& op = ops[i];
    const std::string name = renamed.contains(op.path) ? renamed[op.path] : op.path;
    if (is_data(op)) {
      const auto sync = synced.find(op.path);
      const bool is_durable = sync != synced.end() && sync->second > i;
      uint64_t keep = op.bytes.size();
      if (!is_durable) {
        const uint64_t luck = random() % 4;
        if (luck == 0) continue;
        if (luck == 1) keep = random() % (keep / 512 + 1) * 512;
      }
      apply_write(state[name], op.offset, ByteSpan(op.bytes).first(keep));
      continue;
    }
    if (i >= metadata_end) {
      if (op.kind == Kind::rename) renamed[op.to] = name;
      continue;
    }
    switch (op.kind) {
      case Kind::truncate:
        state[name].resize(op.length);
        break;
      case Kind::punch: {
        Buffer& file = state[name];
        const uint64_t end = std::min<uint64_t>(file.size(), op.offset + op.length);
        for (uint64_t at = op.offset; at < end; at++) file[at] = std::byte{0};
        break;
      }
      case Kind::rename:
        if (const auto from = state.find(name); from != state.end()) {
          Buffer bytes = std::move(from->second);
          state.erase(from);
          state[op.to] = std::move(bytes);
        }
        break;
      case Kind::remove:
        state.erase(name);
        break;
      case Kind::write:
      case Kind::sync:
        break;
    }
  }
  return state;
}

void write_disk(const DiskState& state, const std::string& folder) {
  for (const auto& [name, bytes] : state) {
    const std::filesystem::path path = folder + "/" + name;
    std::filesystem::create_directories(path.parent_path());
    const File file = must(File::open(path.string(), File::Mode::create));
    must(file.write_at(0, bytes));
  }
}

}  // namespace cake

// --- The calls ---

#ifndef CAKE_SANITIZED

namespace {

using cake::g_mutex;
using cake::must_fail;
using Call = cake::FailingCalls::Call;
using cake::g_records;
using cake::name_of;
using cake::note;
using Kind = cake::WriteOp::Kind;

ssize_t interposed_pread(int fd, void* bytes, size_t count, off_t offset) {
  if (cake::g_rule_count > 0) {
    const bool is_direct = (::fcntl(fd, F_GETFL) & O_DIRECT) != 0;
    if (must_fail(Call::read, fd, offset, count) ||
        (is_direct && must_fail(Call::read_direct, fd, offset, count)))
      return -1;
  }
  return ::syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t interposed_pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  if (must_fail(Call::write, fd)) return -1;
  if (!g_records) return ::syscall(SYS_pwrite64, fd, bytes, count, offset);
  const std::lock_guard lock(g_mutex);
  note(Kind::write, name_of(fd), static_cast<uint64_t>(offset), count, bytes);
  return ::syscall(SYS_pwrite64, fd, bytes, count, offset);
}

int interposed_ftruncate(int fd, off_t length) {
  if (g_records) {
    const std::lock_guard lock(g_mutex);
    note(Kind::truncate, name_of(fd), 0, static_cast<uint64_t>(length));
  }
  return static_cast<int>(::syscall(SYS_ftruncate, fd, length));
}

int interposed_fallocate(int fd, int mode, off_t offset, off_t length) {
  if (mode == FALLOC_FL_KEEP_SIZE && must_fail(Call::allocate, fd)) return -1;
  if (g_records && (mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    const std::lock_guard lock(g_mutex);
    note(Kind::punch, name_of(fd), static_cast<uint64_t>(offset), static_cast<uint64_t>(length));
  }
  return static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, length));
}

// The sync is noted when it is done: what it promises holds from then on.
int interposed_sync(long number, int fd) {
  if (must_fail(Call::sync, fd)) return -1;
  const long result = ::syscall(number, fd);
  if (g_records) {
    const std::lock_guard lock(g_mutex);
    note(Kind::sync, name_of(fd), 0, 0, nullptr, "x");
  }
  return static_cast<int>(result);
}

}  // namespace

extern "C" {

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  return interposed_pwrite(fd, bytes, count, offset);
}
ssize_t pwrite64(int fd, const void* bytes, size_t count, off_t offset) {
  return interposed_pwrite(fd, bytes, count, offset);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  if (!g_records) return ::syscall(SYS_write, fd, bytes, count);
  const std::lock_guard lock(g_mutex);
  const off_t offset = ::lseek(fd, 0, SEEK_CUR);
  if (offset >= 0) note(Kind::write, name_of(fd), static_cast<uint64_t>(offset), count, bytes);
  return ::syscall(SYS_write, fd, bytes, count);
}

ssize_t pread(int fd, void* bytes, size_t count, off_t offset) {
  return interposed_pread(fd, bytes, count, offset);
}
ssize_t pread64(int fd, void* bytes, size_t count, off_t offset) {
  return interposed_pread(fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const iovec* parts, int count, off_t offset) {
  if (must_fail(Call::write, fd)) return -1;
  if (g_records) {
    cake::Buffer bytes;
    for (int i = 0; i < count; i++) {
      const auto* from = static_cast<const std::byte*>(parts[i].iov_base);
      bytes.insert(bytes.end(), from, from + parts[i].iov_len);
    }
    const std::lock_guard lock(g_mutex);
    note(Kind::write, name_of(fd), static_cast<uint64_t>(offset), bytes.size(), bytes.data());
  }
  return ::syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

int ftruncate(int fd, off_t length) noexcept {
  return interposed_ftruncate(fd, length);
}
int ftruncate64(int fd, off_t length) noexcept {
  return interposed_ftruncate(fd, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
  return interposed_fallocate(fd, mode, offset, length);
}
int fallocate64(int fd, int mode, off_t offset, off_t length) {
  return interposed_fallocate(fd, mode, offset, length);
}
int fsync(int fd) {
  return interposed_sync(SYS_fsync, fd);
}
int fdatasync(int fd) {
  return interposed_sync(SYS_fdatasync, fd);
}

int rename(const char* from, const char* to) noexcept {
  if (g_records) {
    const std::lock_guard lock(g_mutex);
    note(Kind::rename, cake::relative(from), 0, 0, nullptr, cake::relative(to));
  }
  return static_cast<int>(::syscall(SYS_rename, from, to));
}
int unlink(const char* path) noexcept {
  if (g_records) {
    const std::lock_guard lock(g_mutex);
    note(Kind::remove, cake::relative(path), 0, 0);
  }
  return static_cast<int>(::syscall(SYS_unlink, path));
}

}  // extern "C"

#endif
