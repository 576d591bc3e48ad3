#include "tools/block_sharing.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "store/base/bytes.h"
#include "store/base/part_file.h"
#include "tools/hot.h"
#include "tools/pull_plan.h"

namespace cake {
namespace {

constexpr size_t kProbeBytes = 4096;

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

Result<File> nameless_file(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) return last_error(cat("making a file in ", directory));
  return File(fd, directory);
}

// As its user knows the file: mode, owner, time.
Status take_looks(const File& file, const struct stat& from) {
  const timespec times[2] = {from.st_atim, from.st_mtim};
  if (::fchown(file.fd(), from.st_uid, from.st_gid) != 0 ||
      ::fchmod(file.fd(), from.st_mode & 07777) != 0 || ::futimens(file.fd(), times) != 0)
    return last_error(cat("owner, mode and time of ", file.path()));
  return {};
}

// Beside the target and then in its place.
Result<BlockSharing::Put> replace(const File& source, const std::string& target,
                                  const BlockSharing::Seen* seen) {
  PartFile part = CAKE_TRY(PartFile::create(target));
  const File& file = part.file();
  CAKE_TRY(file.share_blocks_of(source));
  struct stat there {};
  if (::stat(target.c_str(), &there) == 0)
    CAKE_TRY(take_looks(file, there));
  else if (::fchmod(file.fd(), 0644) != 0)
    return last_error(cat("mode of ", file.path()));
  // All that takes its time lies before the last look.
  CAKE_TRY(file.sync_data());
  // A file kept whole is not compared with anything when it is read, and this may be the last good
  // copy.
  if (seen != nullptr && !CAKE_TRY(has_hub_bytes(file.path(), seen->entry)))
    return BlockSharing::Put::damaged;
  if (seen != nullptr && !is_unchanged(target, seen->facts))
    return BlockSharing::Put::target_changed;
  CAKE_TRY(part.publish());
  CAKE_TRY(sync_directory(folder_of(target)));
  return BlockSharing::Put::done;
}

bool is_same_time(const timespec& one, const timespec& other) {
  return one.tv_sec == other.tv_sec && one.tv_nsec == other.tv_nsec;
}

}  // namespace

bool is_unchanged(const std::string& path, const struct stat& seen) {
  struct stat now {};
  return ::stat(path.c_str(), &now) == 0 && now.st_dev == seen.st_dev &&
         now.st_ino == seen.st_ino && now.st_size == seen.st_size &&
         is_same_time(now.st_mtim, seen.st_mtim) && is_same_time(now.st_ctim, seen.st_ctim);
}

Result<BlockSharing> BlockSharing::open(const Context& context, Store& store) {
  return BlockSharing(store, CAKE_TRY(Materializer::open(store)),
                      CAKE_TRY(materialize_options(context, store)));
}

Status BlockSharing::check(const std::string& directory) const {
  const File here = CAKE_TRY(nameless_file(cat(store_.directory(), "/packs")));
  const File there = CAKE_TRY(nameless_file(directory));
  CAKE_TRY(here.write_at(0, Buffer(kProbeBytes)));
  Status done = there.share_blocks_of(here);
  if (!done && done.error().code == Errc::unsupported)
    return Error{Errc::unsupported,
                 cat(directory, " cannot share blocks with the store in ", store_.directory(),
                     ": both have to be on one file system that can, such as XFS or Btrfs")};
  return done;
}

Result<BlockSharing::Put> BlockSharing::put(RowId content, const std::string& target,
                                            const Seen* seen) const {
  const std::optional<ContentRow> row = CAKE_TRY(store_.index().find_content(content));
  if (!row) return Error{Errc::corrupt, cat("index: no content for ", target)};
  using Outcome = Materializer::Outcome;
  const Outcome outcome = CAKE_TRY(materializer_->materialize(content, options_));
  if (outcome == Outcome::busy)
    return Error{Errc::io, "another process is materializing a file of this store: try again"};
  if (outcome != Outcome::done && outcome != Outcome::already) return Put::not_possible;
  const std::optional<File> file = CAKE_TRY(materializer_->open_file(*row));
  if (!file) return Put::not_possible;  // there was need of its room
  return of_this_machine(replace(*file, target, seen));
}

}  // namespace cake
