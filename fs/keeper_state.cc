#include "fs/keeper_state.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "store/base/file.h"

namespace cake {
namespace {

Result<KeeperState*> map_state(int fd) {
  void* memory = mmap(nullptr, sizeof(KeeperState), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return errno_error(errno, "mapping the keeper's memory");
  return static_cast<KeeperState*>(memory);
}

}  // namespace

uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

Result<KeeperMemory> KeeperMemory::create() {
  const int fd = memfd_create("cakefs-keeper", MFD_CLOEXEC);
  if (fd < 0) return errno_error(errno, "memfd_create");
  File owned(fd, "keeper memory");
  CAKE_TRY(owned.truncate(sizeof(KeeperState)));
  KeeperState* state = CAKE_TRY(map_state(fd));
  state->magic = kKeeperMagic;
  state->version = kKeeperStateVersion;
  return KeeperMemory(owned.release(), state);
}

Result<KeeperMemory> KeeperMemory::adopt(int fd, bool may_convert) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return errno_error(errno, "the keeper's memory");
  if (static_cast<uint64_t>(info.st_size) < kKeeperHeaderBytes)
    return Error{Errc::invalid, "the keeper's memory is too small to be one"};
  if (static_cast<uint64_t>(info.st_size) < sizeof(KeeperState)) {
    if (!may_convert) return Error{Errc::unsupported, "the keeper's memory is of another version"};
    if (ftruncate(fd, sizeof(KeeperState)) != 0) return errno_error(errno, "the keeper's memory");
  }
  KeeperState* state = CAKE_TRY(map_state(fd));
  KeeperMemory memory(fd, state);
  if (state->magic != kKeeperMagic) {
    memory.fd_ = -1;  // not ours, so not ours to close
    return Error{Errc::invalid, "not a keeper's memory"};
  }
  if (state->version == kKeeperStateVersion) return memory;
  if (!may_convert) return Error{Errc::unsupported, "the keeper's memory is of another version"};
  // Who has what open is lost, so what is open in which mode is no longer known.
  std::memset(static_cast<void*>(state->opens), 0, sizeof state->opens);
  std::memset(static_cast<void*>(state->resent), 0, sizeof state->resent);
  state->has_overflowed = 1;
  state->version = kKeeperStateVersion;
  return memory;
}

KeeperMemory::KeeperMemory(KeeperMemory&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), state_(std::exchange(other.state_, nullptr)) {}

KeeperMemory::~KeeperMemory() {
  if (state_ != nullptr) munmap(state_, sizeof(KeeperState));
  if (fd_ >= 0) close(fd_);
}

Result<KeeperDescriptors> inherited_descriptors() {
  const char* text = getenv(kKeeperVariable);
  KeeperDescriptors found;
  char rest = 0;
  if (text == nullptr || sscanf(text, "%d,%d%c", &found.fuse, &found.memory, &rest) != 2 ||
      found.fuse < 0 || found.memory < 0)
    return Error{Errc::invalid,
                 cat(kKeeperVariable, " names no keeper; this is an internal command")};
  return found;
}

}  // namespace cake
