// A folder of repos, served as a hub's content.
//
//   DIR/ORG/NAME/…              branch main of the model ORG/NAME
//   DIR/ORG/NAME@REV/…          another branch (REV "refs%2Ftags%2Fv1": a tag, "%2F" for a slash)
//   DIR/NAME/…                  a model without namespace, when files lie directly in NAME
//   DIR/datasets/…, DIR/spaces/…   the same for datasets and spaces
//
// What is served comes from scanning, never from joining a request's words to DIR.  Links are
// followed only to files and repo folders that lie inside DIR.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fetch/hub_content.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {

struct HubFolderOptions {
  std::string directory;
  uint64_t lfs_threshold_bytes = 10 * kMiB;
  Millis rescan{1'000};         // a folder looked at more recently than this is not scanned again
  std::string hash_cache_file;  // remembers hashes of files over restarts; empty: only in memory
  unsigned threads = 2;         // for scanning and hashing
};

// When the same bytes are certain to lie behind a path: what `stat` says.
struct FileStamp {
  uint64_t device = 0, inode = 0, bytes = 0;
  int64_t mtime_ns = 0, ctime_ns = 0;
  auto operator<=>(const FileStamp&) const = default;  // NOLINT(modernize-use-nullptr)
};

// Thread-safe.
class HubFolder final : public HubContent {
 public:
  // Errors: not_found, io  the directory cannot be read
  static Result<std::unique_ptr<HubFolder>> open(HubFolderOptions options);
  // Ends hashing under way; who waits for it gets Errc::cancelled.
  ~HubFolder() override;

  Result<std::vector<HubRepo>> list_repos(RepoType type) override;
  bool has_repo(const RepoName& repo) override;
  void get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) override;
  void get_revision(const RepoName& repo, const std::string& revision,
                    Done<HubRevisionPtr> done) override;

 private:
  // Revision name → folder, of one repo.
  using Revisions = std::map<std::string, std::string>;
  struct Catalog;
  struct Scanner;  // one folder: what was seen last, and who waits for a scan under way
  explicit HubFolder(HubFolderOptions options);

  Result<std::shared_ptr<const Catalog>> catalog() EXCLUDES(mutex_);
  void scan(const std::string& folder, Done<HubRevisionPtr> done) EXCLUDES(mutex_);
  void scan_all(const RepoName& repo,
                std::function<void(Result<std::map<std::string, HubRevisionPtr>>)> done)
      EXCLUDES(mutex_);
  void run_scan(const std::string& folder) EXCLUDES(mutex_);
  Result<HubRevisionPtr> read_folder(const std::string& folder) EXCLUDES(mutex_);
  Result<std::string> hash_file(const std::string& path, const FileStamp& stamp, bool is_lfs)
      EXCLUDES(mutex_);
  void load_hashes() EXCLUDES(mutex_);

  // Constant after construction.
  const HubFolderOptions options_;
  std::string root_;  // canonical, without a slash at the end

  std::atomic<bool> stopping_{false};

  // Guarded by mutex_.  Leaf lock: disks and callers are spoken to without it.
  Mutex mutex_;
  std::shared_ptr<const Catalog> catalog_ GUARDED_BY(mutex_);
  std::map<std::string, Scanner> scanners_ GUARDED_BY(mutex_);
  std::map<std::pair<FileStamp, bool>, std::string> hashes_ GUARDED_BY(mutex_);

  ThreadPool pool_;  // last: its threads use the above
};

}  // namespace cake
