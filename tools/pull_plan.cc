#include "tools/pull_plan.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "store/base/digest.h"
#include "store/coverage.h"
#include "store/twin.h"
#include "tools/command.h"
#include "tools/store_view.h"

namespace cake {
namespace {

uint64_t sum(const std::vector<ByteRange>& ranges) {
  uint64_t bytes = 0;
  for (const ByteRange& range : ranges) bytes += range.length;
  return bytes;
}

// Contents that another repo, or another revision of this one, has too.
Result<std::set<RowId>> held_elsewhere(Index& index, const Snapshot& snapshot) {
  std::set<RowId> held;
  for (const StoredRepo& repo : CAKE_TRY(list_stored_repos(index))) {
    const bool is_this = repo.row.name == snapshot.repo();
    for (const SnapshotRow& row : repo.snapshots) {
      if (is_this && row.commit == snapshot.commit()) continue;
      const RepoContents contents = CAKE_TRY(repo_contents(index, repo, row.commit));
      held.insert(contents.ids.begin(), contents.ids.end());
    }
  }
  return held;
}

class Planner {
 public:
  Planner(Store& store, const PullTarget& target, PullUse use, std::set<RowId> held)
      : store_(store), target_(target), use_(use), held_(std::move(held)) {}

  Result<PlannedFile> plan(const TreeEntry& entry, RowId content_id) {
    PlannedFile file;
    file.transfer = {entry, content_id, "", {}};
    const std::optional<ContentRow> content = CAKE_TRY(store_.index().find_content(content_id));
    if (!content) return Error{Errc::corrupt, cat("index: no content for ", entry.path)};
    std::vector<ByteRange> missing = CAKE_TRY(missing_ranges(store_.index(), *content));
    const uint64_t before = sum(missing);
    uint64_t lacking = before;
    if (before > 0 && use_ == PullUse::look) {
      const uint64_t in_twin = CAKE_TRY(twin_bytes(store_.index(), *content));
      lacking = std::min(before, entry.bytes - std::min(entry.bytes, in_twin));
    } else if (before > 0 && CAKE_TRY(adopt_twin(store_, *content)) > 0) {
      missing = CAKE_TRY(missing_ranges(store_.index(), *content));
      lacking = sum(missing);
    }
    const uint64_t from_twin = before - std::min(before, lacking);
    const bool is_second = !seen_.insert(content_id).second;
    const uint64_t cached = entry.bytes - std::min(lacking, entry.bytes);
    if (is_second)
      file.shared_bytes = entry.bytes;  // comes with the first of that name
    else
      file.shared_bytes = held_.contains(content_id) ? cached : from_twin;
    file.fetch_bytes = is_second ? 0 : std::min(lacking, entry.bytes);
    file.here_bytes = entry.bytes - file.shared_bytes - file.fetch_bytes;
    CAKE_TRY(choose_ranges(file, std::move(missing), is_second));
    return file;
  }

 private:
  Status choose_ranges(PlannedFile& file, std::vector<ByteRange> missing, bool is_second) const {
    const TreeEntry& entry = file.transfer.entry;
    const std::vector<ByteRange> all = {{0, entry.bytes}};
    if (!target_.local_dir.empty()) {
      file.transfer.target = target_.local_dir + "/" + entry.path;
      if (!target_.force && CAKE_TRY(has_hub_bytes(file.transfer.target, entry)))
        file = {{entry, file.transfer.content, "", {}}, entry.bytes, 0, 0};
      else
        file.transfer.ranges = all;
    } else if (target_.force) {
      file.transfer.ranges = all;
    } else if (!is_second) {
      file.transfer.ranges = std::move(missing);
    }
    return {};
  }

  Store& store_;
  const PullTarget& target_;
  const PullUse use_;
  const std::set<RowId> held_;
  std::set<RowId> seen_;
};

}  // namespace

Result<bool> has_hub_bytes(const std::string& path, const TreeEntry& entry) {
  if (!path_exists(path)) return false;
  // A pipe would wait for its writer.
  const File file = CAKE_TRY(of_this_machine(File::open(path, File::Mode::read, O_NONBLOCK)));
  struct stat facts {};
  if (::fstat(file.fd(), &facts) != 0) return last_error(cat("stat ", path));
  if (!S_ISREG(facts.st_mode)) return Error{Errc::io, cat(path, " is not a regular file")};
  const bool is_lfs = !entry.ids.sha256.empty();
  if (!is_lfs && entry.ids.git_oid.empty()) return false;  // nothing to compare with
  if (CAKE_TRY(file.size()) != entry.bytes) return false;
  FileHasher hasher(is_lfs ? FileHash::sha256 : FileHash::git_blob_sha1, entry.bytes);
  Buffer buffer(kMiB);
  for (uint64_t offset = 0; offset < entry.bytes;) {
    const size_t got = CAKE_TRY(file.read_at(offset, buffer));
    if (got == 0) return false;
    hasher.update(ByteSpan(buffer).subspan(0, got));
    offset += got;
  }
  return hasher.finish_hex() == (is_lfs ? entry.ids.sha256 : entry.ids.git_oid);
}

Result<std::vector<PlannedFile>> plan_pull(Store& store, const Snapshot& snapshot,
                                           const FileChoice& choice, const PullTarget& target,
                                           PullUse use) {
  Planner planner(store, target, use, CAKE_TRY(held_elsewhere(store.index(), snapshot)));
  std::vector<PlannedFile> files;
  for (const uint32_t i : CAKE_TRY(choose_files(snapshot, choice)))
    files.push_back(CAKE_TRY(planner.plan(snapshot.entries()[i], snapshot.content_id(i))));
  return files;
}

}  // namespace cake
