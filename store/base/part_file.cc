#include "store/base/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "store/base/digest.h"
#include "store/base/log.h"

namespace cake {

namespace {

constexpr std::string_view kPartEnding = ".part";
constexpr size_t kRandomDigits = 16;
// Of all that stands behind the name of the target.
constexpr size_t kTailBytes = 1 + kRandomDigits + kPartEnding.size();
// How often a file that a sweep took for abandoned, before it was locked, is made anew.
constexpr int kMaxTries = 16;

// The name of a part file up to the dot in front of what is random.
std::string part_stem(const std::filesystem::path& target) {
  const std::string name = target.filename().string();
  // A name that leaves no room for more is not cut: two that begin alike would be one, and half a
  // character is refused by some file systems.
  if (1 + name.size() + kTailBytes > NAME_MAX) return cat(".", blake3(as_bytes(name)).hex());
  return cat(".", name);
}

std::string random_tail() {
  std::random_device random;
  char digits[kRandomDigits + 1];
  std::snprintf(digits, sizeof digits, "%08x%08x", random(), random());
  return cat(".", digits, kPartEnding);
}

// The stem of what may be the name of a part file; empty when it is none.
std::string_view stem_of_part(std::string_view name) {
  if (name.size() <= kTailBytes || !name.ends_with(kPartEnding)) return {};
  const std::string_view digits = name.substr(name.size() - kTailBytes + 1, kRandomDigits);
  const bool is_random = name[name.size() - kTailBytes] == '.' &&
                         digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return is_random ? name.substr(0, name.size() - kTailBytes) : std::string_view();
}

Result<struct stat> facts_of(const File& file) {
  struct stat facts {};
  if (::fstat(file.fd(), &facts) != 0) return last_error(cat("stat ", file.path()));
  return facts;
}

// Whether no writer has it: theirs is locked.
bool is_abandoned(const std::string& path, const File& file) {
  const Result<struct stat> facts = facts_of(file);
  if (!facts || !S_ISREG(facts->st_mode)) return false;
  const Result<bool> locked = file.try_lock({}, true);
  if (!locked || !*locked) return false;
  // Published before it was locked here, and so no part any more.
  struct stat now {};
  return ::lstat(path.c_str(), &now) == 0 && now.st_ino == facts->st_ino &&
         now.st_dev == facts->st_dev;
}

}  // namespace

Result<PartFile> PartFile::create(const std::string& target, unsigned mode) {
  const std::filesystem::path path(target);
  const std::string stem = (path.parent_path() / part_stem(path)).string();
  for (int tries = 0; tries < kMaxTries; tries++) {
    const std::string name = stem + random_tail();
    const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) return last_error(cat("open ", name));
    PartFile part(File(fd, name), target);
    // Where files cannot be locked nobody takes one for abandoned.
    const Result<bool> locked = part.file_.try_lock({}, true);
    if (!locked) return part;
    if (*locked && CAKE_TRY(facts_of(part.file_)).st_nlink > 0) return part;
  }
  return Error{Errc::io, cat("making a file beside ", target, ": others keep removing it")};
}

PartFile::~PartFile() {
  if (!file_.is_open() || is_published_) return;
  // Unlocked by the close that follows, when its name is gone.
  if (const Status removed = remove_file(file_.path()); !removed) log_warn(removed.error().message);
}

Status PartFile::publish() {
  CAKE_TRY(file_.sync_data());
  CAKE_TRY(rename_file(file_.path(), target_));
  is_published_ = true;
  return {};
}

void remove_abandoned_parts(std::span<const std::string> targets) {
  std::map<std::string, std::set<std::string, std::less<>>> stems;
  for (const std::string& target : targets) {
    const std::filesystem::path path(target);
    const std::string folder = path.parent_path().string();
    stems[folder.empty() ? "." : folder].insert(part_stem(path));
  }
  for (const auto& [folder, known] : stems) {
    const Result<std::vector<std::string>> names = list_directory(folder);
    if (!names) continue;  // not there yet, or not for us
    for (const std::string& name : *names) {
      const std::string_view stem = stem_of_part(name);
      if (stem.empty() || !known.contains(stem)) continue;
      const std::string path = cat(folder, "/", name);
      const Result<File> file = File::open(path, File::Mode::read_write, O_NOFOLLOW | O_NONBLOCK);
      if (!file || !is_abandoned(path, *file)) continue;
      if (const Status removed = remove_file(path); !removed) log_warn(removed.error().message);
    }
  }
}

}  // namespace cake
