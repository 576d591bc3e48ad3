#include "store/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "store/base/part_file.h"

namespace cake {

namespace {

Error here(std::string_view call, const std::string& path) {
  return errno_error(errno, cat(call, " ", path));
}

Error read_error(const std::string& path) {
  const bool is_unreadable = errno == EIO;
  Error error = here("read", path);
  if (is_unreadable) error.code = Errc::corrupt;
  return error;
}

// One read or write never moves more than this; larger requests are looped over.
constexpr size_t kMaxTransferBytes = size_t{1} << 30;

}  // namespace

Error errno_error(int error_number, std::string_view what) {
  Errc code = Errc::io;
  if (error_number == ENOSPC || error_number == EDQUOT) code = Errc::no_space;
  if (error_number == ENOENT || error_number == ENOTDIR) code = Errc::not_found;
  if (error_number == EACCES || error_number == EPERM || error_number == EROFS) code = Errc::denied;
  if (error_number == EINTR) code = Errc::cancelled;
  return Error{code, cat(what, ": ", std::strerror(error_number))};
}

Error last_error(std::string_view what) {
  return errno_error(errno, what);
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}
File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

Result<File> File::open(const std::string& path, Mode mode, int extra_flags) {
  int flags = O_CLOEXEC | extra_flags;
  switch (mode) {
    case Mode::read:
      flags |= O_RDONLY;
      break;
    case Mode::read_write:
      flags |= O_RDWR;
      break;
    case Mode::create:
      flags |= O_RDWR | O_CREAT;
      break;
    case Mode::create_new:
      flags |= O_RDWR | O_CREAT | O_EXCL;
      break;
    case Mode::append:
      flags |= O_WRONLY | O_CREAT | O_APPEND;
      break;
  }
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags, 0644);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return here("open", path);
  return File(fd, path);
}

int File::release() {
  return std::exchange(fd_, -1);
}

Result<size_t> File::read_at(uint64_t offset, MutableByteSpan out) const {
  size_t done = 0;
  while (done < out.size()) {
    const size_t want = std::min(out.size() - done, kMaxTransferBytes);
    const ssize_t got = ::pread(fd_, out.data() + done, want, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return read_error(path_);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<size_t> File::read_direct_at(uint64_t offset, MutableByteSpan out) const {
  // A read that ends off the alignment met the file's end; asking on from there is an error.
  constexpr size_t kLeastBlock = 512;
  size_t done = 0;
  while (done < out.size() && done % kLeastBlock == 0) {
    const ssize_t got =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return read_error(path_);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Status File::read_exactly_at(uint64_t offset, MutableByteSpan out) const {
  const size_t got = CAKE_TRY(read_at(offset, out));
  if (got != out.size())
    return Error{Errc::corrupt, cat(path_, " ends at ", offset + got, ", wanted ", out.size(),
                                    " bytes from ", offset)};
  return {};
}

Status File::write_at(uint64_t offset, ByteSpan bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t want = std::min(bytes.size() - done, kMaxTransferBytes);
    const ssize_t put = ::pwrite(fd_, bytes.data() + done, want, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return here("write", path_);
    done += static_cast<size_t>(put);
  }
  return {};
}

Status File::write_parts_at(uint64_t offset, std::span<const ByteSpan> parts) const {
  std::vector<iovec> pieces;
  for (const ByteSpan part : parts)
    if (!part.empty())
      pieces.push_back({const_cast<std::byte*>(part.data()), part.size()});  // only read from
  size_t first = 0;
  while (first < pieces.size()) {
    const int count = static_cast<int>(std::min<size_t>(pieces.size() - first, IOV_MAX));
    ssize_t put = ::pwritev(fd_, &pieces[first], count, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return here("write", path_);
    offset += static_cast<uint64_t>(put);
    while (first < pieces.size() && static_cast<size_t>(put) >= pieces[first].iov_len)
      put -= static_cast<ssize_t>(pieces[first++].iov_len);
    if (put == 0) continue;
    pieces[first].iov_base = static_cast<std::byte*>(pieces[first].iov_base) + put;
    pieces[first].iov_len -= static_cast<size_t>(put);
  }
  return {};
}

Status File::append(ByteSpan bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return here("write", path_);
    done += static_cast<size_t>(put);
  }
  return {};
}

Status File::sync_data() const {
  if (::fdatasync(fd_) != 0) return here("fdatasync", path_);
  return {};
}

Status File::truncate(uint64_t bytes) const {
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) return here("truncate", path_);
  return {};
}

Result<uint64_t> File::size() const {
  struct stat facts {};
  if (::fstat(fd_, &facts) != 0) return here("stat", path_);
  return static_cast<uint64_t>(facts.st_size);
}

Result<uint64_t> File::find_data(uint64_t offset) const {
  const off_t found = ::lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
  if (found >= 0) return static_cast<uint64_t>(found);
  if (errno == ENXIO) return size();  // nothing but hole behind it
  return here("seek in", path_);
}

Result<uint64_t> File::disk_bytes() const {
  struct stat facts {};
  if (::fstat(fd_, &facts) != 0) return here("stat", path_);
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

Status File::punch_hole(ByteRange range) const {
  if (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                  static_cast<off_t>(range.length)) != 0)
    return here("punch hole in", path_);
  return {};
}

Result<bool> File::preallocate(ByteRange range) const {
  int failed = 0;
  do {
    failed = ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                         static_cast<off_t>(range.length));
  } while (failed != 0 && errno == EINTR);
  if (failed == 0) return true;
  if (errno == EOPNOTSUPP || errno == ENOSYS) return false;
  return here("reserve space in", path_);
}

Status File::share_blocks_of(const File& source) const {
  if (::ioctl(fd_, FICLONE, source.fd()) == 0) return {};
  if (errno == EOPNOTSUPP || errno == EXDEV || errno == EINVAL || errno == ENOTTY)
    return Error{Errc::unsupported, cat(path_, " cannot share blocks with ", source.path(), ": ",
                                        std::strerror(errno))};
  return here("share blocks with", path_);
}

void File::drop_cache(ByteRange range) const {
  // Advice: a file system that cannot follow it costs memory, not correctness.
  (void)::posix_fadvise(fd_, static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                        POSIX_FADV_DONTNEED);
}

namespace {

struct flock flock_for(ByteRange range, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(range.offset);
  lock.l_len = static_cast<off_t>(range.length);
  return lock;
}

}  // namespace

Result<bool> File::try_lock(ByteRange range, bool exclusive) const {
  struct flock lock = flock_for(range, exclusive ? F_WRLCK : F_RDLCK);
  if (::fcntl(fd_, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return here("lock", path_);
}

Status File::lock(ByteRange range, bool exclusive) const {
  struct flock lock = flock_for(range, exclusive ? F_WRLCK : F_RDLCK);
  while (::fcntl(fd_, F_OFD_SETLKW, &lock) != 0)
    if (errno != EINTR) return here("lock", path_);
  return {};
}

Status File::unlock(ByteRange range) const {
  struct flock lock = flock_for(range, F_UNLCK);
  if (::fcntl(fd_, F_OFD_SETLK, &lock) != 0) return here("unlock", path_);
  return {};
}

Status make_directories(const std::string& path, unsigned mode) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (!part.empty() && ::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
      // A parent that we may not write but that exists (EROFS, EACCES) is fine.
      struct stat facts {};
      const int saved = errno;
      if (::stat(part.c_str(), &facts) != 0 || !S_ISDIR(facts.st_mode))
        return errno_error(saved, cat("mkdir ", part));
    }
    if (slash == std::string::npos) break;
  }
  return {};
}

Status sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return here("open", path);
  const File directory(fd, path);
  if (::fsync(fd) != 0) return here("fsync", path);
  return {};
}

Status remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return here("remove", path);
  return {};
}

Status rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return here("rename", from);
  return {};
}

bool path_exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

Result<uint64_t> path_disk_bytes(const std::string& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0) return here("stat", path);
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

Result<unsigned> path_owner(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) return here("stat", path);
  return static_cast<unsigned>(facts.st_uid);
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return here("open directory", path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int failure = errno;
  ::closedir(directory);
  if (failure != 0) return errno_error(failure, cat("read directory ", path));
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::string> read_text_file(const std::string& path, uint64_t limit) {
  const File file = CAKE_TRY(File::open(path, File::Mode::read));
  std::string text;
  // Not st_size: files in /proc say 0.
  std::vector<std::byte> block(64 * kKiB);
  while (true) {
    const size_t got = CAKE_TRY(file.read_at(text.size(), block));
    text += as_text(ByteSpan(block).first(got));
    if (text.size() > limit)
      return Error{Errc::invalid, cat(path, " is larger than ", limit, " bytes")};
    if (got < block.size()) return text;
  }
}

Status write_file_atomically(const std::string& path, ByteSpan bytes, unsigned mode) {
  PartFile part = CAKE_TRY(PartFile::create(path, mode));
  CAKE_TRY(part.file().write_at(0, bytes));
  CAKE_TRY(part.publish());
  const size_t slash = path.rfind('/');
  return sync_directory(slash == std::string::npos ? "."
                                                   : path.substr(0, std::max<size_t>(slash, 1)));
}

Result<DiskSpace> disk_space(const std::string& path) {
  struct statvfs facts {};
  if (::statvfs(path.c_str(), &facts) != 0) return here("statvfs", path);
  return DiskSpace{facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize};
}

}  // namespace cake
