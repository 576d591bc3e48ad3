#include "fs/shown_files.h"

#include "store/glob.h"

namespace cake {

namespace {

constexpr size_t kMaxMadeCommits = 32;

}  // namespace

bool ShownChoice::shows(const std::string& path) const {
  const bool is_below = subdir.empty() || (path.size() > subdir.size() + 1 &&
                                           path.starts_with(subdir) && path[subdir.size()] == '/');
  return is_below && passes_globs(include, exclude, path);
}

Result<ShownFiles::SnapshotPtr> ShownFiles::of(const SnapshotPtr& commit) {
  if (choice_.is_all()) return commit;
  {
    MutexLock lock(mutex_);
    for (auto place = made_.begin(); place != made_.end(); ++place) {
      const Snapshot& known = *place->commit;
      if (known.repo() != commit->repo() || known.commit() != commit->commit()) continue;
      made_.splice(made_.begin(), made_, place);
      return made_.front().shown;
    }
  }
  SnapshotPtr shown = CAKE_TRY(make(*commit));
  MutexLock lock(mutex_);
  made_.push_front({commit, shown});
  if (made_.size() > kMaxMadeCommits) made_.pop_back();
  return shown;
}

Result<ShownFiles::SnapshotPtr> ShownFiles::make(const Snapshot& commit) const {
  if (!choice_.subdir.empty()) {
    const auto folder = commit.find_path(choice_.subdir);
    if (!folder || !commit.nodes()[*folder].is_directory)
      return Error{Errc::not_found, cat(commit.repo().id, "@", commit.commit(), " has no folder ",
                                        choice_.subdir, " (subdir=)")};
  }
  const size_t cut =
      paths_ == Paths::below_subdir && !choice_.subdir.empty() ? choice_.subdir.size() + 1 : 0;
  std::vector<TreeEntry> entries;
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < commit.entries().size(); i++) {
    if (!choice_.shows(commit.entries()[i].path)) continue;
    entries.push_back(commit.entries()[i]);
    entries.back().path.erase(0, cut);
    ids.push_back(commit.content_id(i));
  }
  return std::make_shared<const Snapshot>(commit.repo(), commit.commit(), commit.date(),
                                          std::move(entries), std::move(ids));
}

}  // namespace cake
