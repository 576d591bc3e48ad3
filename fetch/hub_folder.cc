#include "fetch/hub_folder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <sstream>

#include "store/base/digest.h"
#include "store/base/log.h"

namespace cake {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxFiles = 1'000'000;  // of a repo
constexpr int kMaxFolderDepth = 64;
constexpr size_t kMaxCommits = 64;  // kept for each folder after the tree has moved on
constexpr uint64_t kMaxHashCacheBytes = 256 * kMiB;
constexpr size_t kHashBlockBytes = 1 * kMiB;

FileStamp stamp_of(const struct stat& info) {
  const auto nanos = [](const timespec& time) {
    return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  return {info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size), nanos(info.st_mtim),
          nanos(info.st_ctim)};
}

struct FoundFile {
  std::string path;   // in the repo
  std::string local;  // where it really lies
  FileStamp stamp;
};

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t tail = lead < 0x80   ? 0
                        : lead < 0xc2 ? 9
                        : lead < 0xe0 ? 1
                        : lead < 0xf0 ? 2
                        : lead < 0xf5 ? 3
                                      : 9;
    if (tail == 9 || i + tail >= text.size()) return false;
    for (size_t k = 1; k <= tail; k++)
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    i += tail + 1;
  }
  return true;
}

// Where `path` leads, when that is inside `root`.
std::optional<std::string> find_inside(const std::string& root, const std::string& path) {
  std::error_code failed;
  const std::string real = fs::canonical(path, failed).string();
  if (failed || !real.starts_with(root + "/")) return std::nullopt;
  return real;
}

// What lies below a folder, in any order, and what had to be left out, in words.
struct Findings {
  std::vector<FoundFile> files;
  std::vector<std::string> left_out;
};
// Files below `folder`.  What vanishes meanwhile is left out, as a later scan would.
Status find_files(const std::string& root, const std::string& folder, const std::string& prefix,
                  int depth, Findings& out) {
  if (depth > kMaxFolderDepth) return Error{Errc::unsupported, folder + ": nested too deeply"};
  for (const std::string& name : CAKE_TRY(list_directory(folder))) {
    if (name == ".git") continue;
    const std::string path = prefix + name;
    std::string local = cat(folder, "/", name);
    if (!is_utf8(name) || !is_valid_repo_path(path)) {
      out.left_out.push_back(folder + " holds a name that no repo can have");
      continue;
    }
    struct stat info {};
    if (::lstat(local.c_str(), &info) != 0) continue;
    if (S_ISLNK(info.st_mode)) {
      const auto real = find_inside(root, local);
      if (!real || ::stat(real->c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
        out.left_out.push_back(local + " leads outside or to no file");
        continue;
      }
      local = *real;
    }
    if (S_ISDIR(info.st_mode))
      CAKE_TRY(find_files(root, local, path + "/", depth + 1, out));
    else if (S_ISREG(info.st_mode))
      out.files.push_back({path, local, stamp_of(info)});
    if (out.files.size() > kMaxFiles) return Error{Errc::unsupported, folder + ": too many files"};
  }
  return {};
}

Result<File> open_unchanged(const std::string& local, const FileStamp& stamp) {
  File file = CAKE_TRY(File::open(local, File::Mode::read, O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (::fstat(file.fd(), &info) != 0) return last_error("looking at " + local);
  if (stamp_of(info) != stamp)
    return Error{Errc::corrupt, local + " changed since its commit was announced"};
  return file;
}

}  // namespace

struct HubFolder::Catalog {
  struct Repo {
    Revisions revisions;
    int64_t last_modified = 0;
  };
  SteadyTime read_at;
  std::map<RepoName, Repo> repos;
};

struct HubFolder::Scanner {
  SteadyTime scanned_at = SteadyTime::min();
  bool is_running = false;
  std::string fingerprint;               // of paths and stamps
  HubRevisionPtr current;                // null: never scanned
  std::deque<HubRevisionPtr> announced;  // oldest first
  std::vector<Done<HubRevisionPtr>> waiting;
};

HubFolder::HubFolder(HubFolderOptions options)
    : options_(std::move(options)), pool_("hub-scan", std::max(1U, options_.threads)) {}
HubFolder::~HubFolder() {
  stopping_ = true;
}

Result<std::unique_ptr<HubFolder>> HubFolder::open(HubFolderOptions options) {
  std::error_code failed;
  const fs::path root = fs::canonical(options.directory, failed);
  if (failed)
    return Error{failed == std::errc::no_such_file_or_directory ? Errc::not_found : Errc::io,
                 cat(options.directory, ": ", failed.message())};
  if (!fs::is_directory(root, failed))
    return Error{Errc::invalid, options.directory + ": not a directory"};
  std::unique_ptr<HubFolder> folder(new HubFolder(std::move(options)));
  folder->root_ = root == "/" ? "" : root.string();
  folder->load_hashes();
  CAKE_TRY(folder->catalog());
  return folder;
}

// --- Which repos there are ------------------------------------------------------------

namespace {

struct Folder {
  std::string name, path;
  int64_t mtime = 0;
};
// Folders directly in `path`; `has_files`: whether a plain file lies beside them.
Result<std::vector<Folder>> list_folders(const std::string& root, const std::string& path,
                                         bool& has_files) {
  std::vector<Folder> out;
  has_files = false;
  for (const std::string& name : CAKE_TRY(list_directory(path.empty() ? "/" : path))) {
    struct stat info {};
    std::string inner = cat(path, "/", name);
    if (::lstat(inner.c_str(), &info) != 0) continue;
    if (S_ISLNK(info.st_mode)) {
      const auto real = find_inside(root, inner);
      if (!real || ::stat(real->c_str(), &info) != 0) continue;
      inner = *real;
    }
    if (S_ISDIR(info.st_mode))
      out.push_back({name, inner, info.st_mtim.tv_sec});
    else if (S_ISREG(info.st_mode))
      has_files = true;
  }
  return out;
}

}  // namespace

Result<std::shared_ptr<const HubFolder::Catalog>> HubFolder::catalog() {
  {
    MutexLock lock(mutex_);
    if (catalog_ && catalog_->read_at + options_.rescan > steady_now()) return catalog_;
  }
  auto fresh = std::make_shared<Catalog>();
  const auto add = [&](RepoType type, const std::string& owner, const Folder& folder) {
    const size_t at = folder.name.find('@');
    const std::string name = folder.name.substr(0, at);
    const auto revision = at == std::string::npos ? std::optional<std::string>("main")
                                                  : decode_uri_part(folder.name.substr(at + 1));
    const RepoName repo{type, owner.empty() ? name : cat(owner, '/', name)};
    if (!is_valid_repo_id(repo.id) || !revision || !is_valid_revision(*revision)) return;
    Catalog::Repo& entry = fresh->repos[repo];
    entry.revisions[*revision] = folder.path;
    entry.last_modified = std::max(entry.last_modified, folder.mtime);
  };
  const auto add_all = [&](RepoType type, const std::string& path) -> Status {
    bool has_files = false;
    for (const Folder& owner : CAKE_TRY(list_folders(root_, path, has_files))) {
      const bool is_other_type =
          type == RepoType::model && (owner.name == "datasets" || owner.name == "spaces");
      if (is_other_type || owner.name == ".git") continue;
      auto inner = list_folders(root_, owner.path, has_files);
      if (!inner) {
        log_warn(cat("hub: ", inner.error().message));
        continue;
      }
      if (has_files) {
        add(type, "", owner);
        continue;
      }
      for (const Folder& folder : *inner) add(type, owner.name, folder);
    }
    return {};
  };
  CAKE_TRY(add_all(RepoType::model, root_));
  for (const RepoType type : {RepoType::dataset, RepoType::space}) {
    const std::string path = cat(root_, '/', repo_type_plural(type));
    if (path_exists(path)) CAKE_TRY(add_all(type, path));
  }
  fresh->read_at = steady_now();
  MutexLock lock(mutex_);
  catalog_ = fresh;
  return catalog_;
}

Result<std::vector<HubRepo>> HubFolder::list_repos(RepoType type) {
  const auto known = CAKE_TRY(catalog());
  std::vector<HubRepo> out;
  for (const auto& [name, repo] : known->repos)
    if (name.type == type) out.push_back({name.id, repo.last_modified});
  return out;
}

bool HubFolder::has_repo(const RepoName& repo) {
  const auto known = catalog();
  return known && (*known)->repos.contains(repo);
}

// --- What is in a folder ----------------------------------------------------------------

void HubFolder::scan(const std::string& folder, Done<HubRevisionPtr> done) {
  HubRevisionPtr fresh;
  {
    MutexLock lock(mutex_);
    Scanner& scanner = scanners_[folder];
    if (scanner.current && scanner.scanned_at + options_.rescan > steady_now()) {
      fresh = scanner.current;
    } else {
      scanner.waiting.push_back(std::move(done));
      if (scanner.is_running) return;
      scanner.is_running = true;
    }
  }
  if (fresh) return done(fresh);  // NOLINT(bugprone-use-after-move): moved only without it
  pool_.post(ThreadPool::Priority::demand, [this, folder] { run_scan(folder); });
}

void HubFolder::run_scan(const std::string& folder) {
  const SteadyTime started = steady_now();
  Result<HubRevisionPtr> outcome = read_folder(folder);
  if (!outcome) log_warn(cat("hub: ", outcome.error().message));
  std::vector<Done<HubRevisionPtr>> waiting;
  {
    MutexLock lock(mutex_);
    Scanner& scanner = scanners_[folder];
    scanner.is_running = false;
    if (outcome) scanner.scanned_at = started;
    waiting.swap(scanner.waiting);
  }
  for (const auto& done : waiting) done(outcome);
}

Result<HubRevisionPtr> HubFolder::read_folder(const std::string& folder) {
  Findings findings;
  CAKE_TRY(find_files(root_, folder, "", 0, findings));
  std::vector<FoundFile>& found = findings.files;
  std::sort(found.begin(), found.end(),
            [](const FoundFile& a, const FoundFile& b) { return a.path < b.path; });
  std::string fingerprint;
  for (const FoundFile& file : found)
    fingerprint += cat(file.path, '\0', file.stamp.device, ' ', file.stamp.inode, ' ',
                       file.stamp.bytes, ' ', file.stamp.mtime_ns, ' ', file.stamp.ctime_ns, '\n');
  fingerprint = file_hash_hex(FileHash::sha256, as_bytes(fingerprint));
  {
    MutexLock lock(mutex_);
    const Scanner& scanner = scanners_[folder];
    if (scanner.current && scanner.fingerprint == fingerprint) return scanner.current;
  }
  for (const std::string& what : findings.left_out) log_warn("hub: left out: " + what);
  auto revision = std::make_shared<HubRevision>();
  for (const FoundFile& file : found) {
    const bool is_lfs = is_lfs_file(file.path, file.stamp.bytes, options_.lfs_threshold_bytes);
    const std::string hash = CAKE_TRY(hash_file(file.local, file.stamp, is_lfs));
    const auto open = [local = file.local,
                       stamp = file.stamp](ByteRange range) -> Result<HttpBody> {
      return HttpBody(FileBody{CAKE_TRY(open_unchanged(local, stamp)), range});
    };
    revision->files.push_back(
        {{file.path, file.stamp.bytes, ids_from_hash(hash, is_lfs, file.stamp.bytes)}, open});
    revision->last_modified =
        std::max(revision->last_modified, file.stamp.mtime_ns / 1'000'000'000);
  }
  revision->commit = commit_of(revision->files);
  MutexLock lock(mutex_);
  Scanner& scanner = scanners_[folder];
  scanner.fingerprint = fingerprint;
  scanner.current = revision;
  // A commit that was touched keeps its name but has new stamps.
  std::erase_if(scanner.announced,
                [&](const HubRevisionPtr& old) { return old->commit == revision->commit; });
  scanner.announced.push_back(revision);
  if (scanner.announced.size() > kMaxCommits) scanner.announced.pop_front();
  return HubRevisionPtr(revision);
}

// --- Hashes -------------------------------------------------------------------------------

void HubFolder::load_hashes() {
  if (options_.hash_cache_file.empty()) return;
  const auto text = read_text_file(options_.hash_cache_file, kMaxHashCacheBytes);
  if (!text) {
    if (text.error().code != Errc::not_found)
      log_warn(cat("hub: hashes are computed again: ", text.error().message));
    return;
  }
  std::istringstream lines(*text);
  MutexLock lock(mutex_);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    FileStamp stamp;
    int is_lfs = 0;
    std::string hash;
    words >> stamp.device >> stamp.inode >> stamp.bytes >> stamp.mtime_ns >> stamp.ctime_ns >>
        is_lfs >> hash;
    // A torn last line fails here.
    if (words && is_hex(hash, is_lfs != 0 ? 64 : 40)) hashes_[{stamp, is_lfs != 0}] = hash;
  }
}

Result<std::string> HubFolder::hash_file(const std::string& path, const FileStamp& stamp,
                                         bool is_lfs) {
  {
    MutexLock lock(mutex_);
    const auto known = hashes_.find({stamp, is_lfs});
    if (known != hashes_.end()) return known->second;
  }
  const File file = CAKE_TRY(open_unchanged(path, stamp));
  FileHasher hasher(is_lfs ? FileHash::sha256 : FileHash::git_blob_sha1, stamp.bytes);
  Buffer block(std::min<uint64_t>(kHashBlockBytes, std::max<uint64_t>(1, stamp.bytes)));
  for (uint64_t at = 0; at < stamp.bytes;) {
    if (stopping_) return Error{Errc::cancelled, path};
    const auto part =
        MutableByteSpan(block).first(std::min<uint64_t>(block.size(), stamp.bytes - at));
    CAKE_TRY(file.read_exactly_at(at, part));
    hasher.update(part);
    at += part.size();
  }
  const std::string hash = hasher.finish_hex();
  // Written to while it was read: the hash is of no file that ever was.
  CAKE_TRY(open_unchanged(path, stamp));
  {
    MutexLock lock(mutex_);
    hashes_[{stamp, is_lfs}] = hash;
  }
  // Only what was dear to compute is worth a line.
  if (!options_.hash_cache_file.empty() && stamp.bytes >= 1 * kMiB) {
    const auto sidecar = File::open(options_.hash_cache_file, File::Mode::append);
    const std::string line =
        cat(stamp.device, ' ', stamp.inode, ' ', stamp.bytes, ' ', stamp.mtime_ns, ' ',
            stamp.ctime_ns, ' ', is_lfs ? 1 : 0, ' ', hash, '\n');
    const Status written = sidecar ? sidecar->append(as_bytes(line)) : Status(sidecar.error());
    if (!written) log_warn(cat("hub: hash not kept: ", written.error().message));
  }
  return hash;
}

// --- Refs and revisions ---------------------------------------------------------------------

void HubFolder::scan_all(const RepoName& repo,
                         std::function<void(Result<std::map<std::string, HubRevisionPtr>>)> done) {
  auto known = catalog();
  if (!known) return done(std::move(known).error());
  const auto found = (*known)->repos.find(repo);
  if (found == (*known)->repos.end()) return done(Error{Errc::not_found, repo.id});
  struct Gather {
    Mutex mutex;
    std::map<std::string, HubRevisionPtr> revisions GUARDED_BY(mutex);
    std::optional<Error> error GUARDED_BY(mutex);
    size_t left GUARDED_BY(mutex) = 0;
  };
  auto gather = std::make_shared<Gather>();
  const Revisions revisions = found->second.revisions;
  {
    MutexLock lock(gather->mutex);
    gather->left = revisions.size();
  }
  for (const auto& [name, folder] : revisions) {
    scan(folder, [gather, done, revision = name](Result<HubRevisionPtr> outcome) {
      std::optional<Error> error;
      std::map<std::string, HubRevisionPtr> all;
      {
        MutexLock lock(gather->mutex);
        if (outcome)
          gather->revisions[revision] = *outcome;
        else
          gather->error = outcome.error();
        if (--gather->left > 0) return;
        error = gather->error;
        all = std::move(gather->revisions);
      }
      if (error) return done(*error);
      done(std::move(all));
    });
  }
}

void HubFolder::get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) {
  scan_all(repo, [done](Result<std::map<std::string, HubRevisionPtr>> all) {
    if (!all) return done(std::move(all).error());
    std::vector<HubRef> refs;
    for (const auto& [name, revision] : *all) {
      refs.push_back(name_ref(name));
      refs.back().commit = revision->commit;
    }
    done(std::move(refs));
  });
}

void HubFolder::get_revision(const RepoName& repo, const std::string& revision,
                             Done<HubRevisionPtr> done) {
  auto known = catalog();
  if (!known) return done(std::move(known).error());
  const auto found = (*known)->repos.find(repo);
  if (found == (*known)->repos.end()) return done(Error{Errc::not_found, repo.id});
  // "v1", "refs/heads/v1" and "refs/tags/v1" may all be asked for, and be the folder's name.
  for (const auto& [name, folder] : found->second.revisions) {
    const HubRef ref = name_ref(name);
    if (revision == name || revision == ref.name || revision == ref.ref)
      return scan(folder, std::move(done));
  }
  if (!is_commit(revision)) return done(Error{Errc::not_found, revision});
  HubRevisionPtr announced;
  {
    MutexLock lock(mutex_);
    for (const auto& [name, folder] : found->second.revisions)
      for (const HubRevisionPtr& each : scanners_[folder].announced)
        if (each->commit == revision) announced = each;
  }
  if (announced) return done(announced);
  // After a restart nothing was announced yet, but commits are what they were.
  scan_all(repo, [done, revision](Result<std::map<std::string, HubRevisionPtr>> all) {
    if (!all) return done(std::move(all).error());
    for (const auto& [name, each] : *all)
      if (each->commit == revision) return done(each);
    done(Error{Errc::not_found, revision});
  });
}

}  // namespace cake
