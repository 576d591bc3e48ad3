// What of a commit a mount shows: subdir=, include=, exclude=.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "fetch/client.h"

namespace cake {

struct ShownChoice {
  std::string subdir;                         // "" is the repo's root
  std::vector<std::string> include, exclude;  // matches_glob over the path in the repo
  bool is_all() const { return subdir.empty() && include.empty() && exclude.empty(); }
  bool shows(const std::string& path) const;
};

// Commits as the choice leaves them; folders without a file are gone.  Thread-safe.
class ShownFiles {
 public:
  using SnapshotPtr = Client::SnapshotPtr;
  // Paths in the subdir, or in the repo.
  enum class Paths { below_subdir, whole };
  ShownFiles(ShownChoice choice, Paths paths) : choice_(std::move(choice)), paths_(paths) {}

  // not_found when the commit has no such subdir.
  Result<SnapshotPtr> of(const SnapshotPtr& commit) EXCLUDES(mutex_);

 private:
  Result<SnapshotPtr> make(const Snapshot& commit) const;

  const ShownChoice choice_;
  const Paths paths_;

  // Guarded by mutex_.  Leaf lock.
  struct Made {
    SnapshotPtr commit, shown;
  };
  Mutex mutex_;
  std::list<Made> made_ GUARDED_BY(mutex_);  // newest first
};

}  // namespace cake
