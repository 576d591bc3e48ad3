// System calls on files, with Errors that name the path.  The only place that reads errno.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cake {

// errno as an Error: ENOSPC and EDQUOT give no_space, ENOENT not_found, EACCES and EPERM denied,
// EINTR cancelled, the rest io.  `what` names the call and path.
Error errno_error(int error_number, std::string_view what);
// The same for what errno says now: call it right after the system call that failed.
Error last_error(std::string_view what);

// Owns a descriptor.  Thread-compatible; positional reads and writes may run concurrently.
class File {
 public:
  enum class Mode { read, read_write, create, create_new, append };

  File() = default;
  // Takes ownership of `fd`.
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  // All descriptors are close-on-exec.  `create` opens read-write, making the file if absent;
  // `create_new` fails if it is there.  `extra_flags`: O_DIRECT and the like.
  static Result<File> open(const std::string& path, Mode mode, int extra_flags = 0);

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  int release();

  // Bytes read: short only at end of file.  corrupt when the disk cannot read them (EIO): like a
  // wrong byte, and unlike other errors, that is said of these bytes and will be said again.
  Result<size_t> read_at(uint64_t offset, MutableByteSpan out) const;
  // For O_DIRECT: `out` is aligned, and filled but for what lies behind the file's end.
  Result<size_t> read_direct_at(uint64_t offset, MutableByteSpan out) const;
  // corrupt when the file ends before `out` is full.
  Status read_exactly_at(uint64_t offset, MutableByteSpan out) const;
  Status write_at(uint64_t offset, ByteSpan bytes) const;
  // The parts one after the other, in as few system calls as the kernel takes.
  Status write_parts_at(uint64_t offset, std::span<const ByteSpan> parts) const;
  Status append(ByteSpan bytes) const;
  Status sync_data() const;
  Status truncate(uint64_t bytes) const;
  Result<uint64_t> size() const;
  // The first offset at or behind `offset` that is not in a hole; the file's size when there is
  // none.
  Result<uint64_t> find_data(uint64_t offset) const;
  // Bytes that the file occupies on disk (st_blocks).
  Result<uint64_t> disk_bytes() const;
  // Gives the blocks of the range back to the disk; the file keeps its length and reads as zeros.
  Status punch_hole(ByteRange range) const;
  // Blocks for the range, taken from the disk now; the file keeps its length.  False where the file
  // system cannot do that.  no_space: nothing was taken that truncate(size) does not give back.
  Result<bool> preallocate(ByteRange range) const;
  // The whole of `source`, sharing its blocks (reflink): takes no room until one of them is
  // written. unsupported where the file system cannot do that, or the files are on two.
  Status share_blocks_of(const File& source) const;
  // Advice only: drops the range from the page cache.
  void drop_cache(ByteRange range) const;

  // Open-file-description locks on a byte range (length 0: to the end of the file and beyond).
  // try_lock answers false when another open description holds a conflicting lock.
  Result<bool> try_lock(ByteRange range, bool exclusive) const;
  Status lock(ByteRange range, bool exclusive) const;  // waits; use where holders are short
  Status unlock(ByteRange range) const;

 private:
  int fd_ = -1;
  std::string path_;
};

Status make_directories(const std::string& path, unsigned mode = 0755);
Status sync_directory(const std::string& path);
Status remove_file(const std::string& path);  // absent is fine
Status rename_file(const std::string& from, const std::string& to);
bool path_exists(const std::string& path);
// Bytes that a file or directory itself occupies on disk (st_blocks); not_found when absent.
Result<uint64_t> path_disk_bytes(const std::string& path);
// User id of the owner; not_found when absent.
Result<unsigned> path_owner(const std::string& path);
// Names in a directory, sorted, without "." and "..".
Result<std::vector<std::string>> list_directory(const std::string& path);
// Whole file, at most `limit` bytes (more is an error); not_found when absent.
Result<std::string> read_text_file(const std::string& path, uint64_t limit);
// Temporary file, fsync, rename, fsync of the directory.
Status write_file_atomically(const std::string& path, ByteSpan bytes, unsigned mode = 0644);

struct DiskSpace {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // what an ordinary process may still use
};
Result<DiskSpace> disk_space(const std::string& path);

}  // namespace cake
