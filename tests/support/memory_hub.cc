#include "tests/support/memory_hub.h"

#include <algorithm>

#include "store/base/digest.h"
#include "tests/support/pattern.h"

namespace cake {

namespace {

constexpr uint64_t kLfsThresholdBytes = 10 * kMiB;
constexpr uint64_t kHashedPatternBytes = 256 * kMiB;
constexpr int64_t kDate = 1'700'000'000;

std::string hash_pattern(uint64_t seed, uint64_t bytes, bool is_lfs) {
  FileHasher hasher(is_lfs ? FileHash::sha256 : FileHash::git_blob_sha1, bytes);
  for (uint64_t at = 0; at < bytes; at += kMiB)
    hasher.update(pattern_bytes(seed, at, std::min(kMiB, bytes - at)));
  return hasher.finish_hex();
}

}  // namespace

void MemoryHub::add_bytes(const RepoName& repo, const std::string& revision,
                          const std::string& path, Buffer bytes) {
  const uint64_t length = bytes.size();
  const bool is_lfs = is_lfs_file(path, length, kLfsThresholdBytes);
  const std::string hash =
      file_hash_hex(is_lfs ? FileHash::sha256 : FileHash::git_blob_sha1, bytes);
  auto shared = std::make_shared<const Buffer>(std::move(bytes));
  add(repo, revision,
      {{path, length, ids_from_hash(hash, is_lfs, length)},
       [shared](ByteRange range) -> Result<HttpBody> {
         const auto source = [shared, range](uint64_t offset, MutableByteSpan out) {
           const size_t count = std::min<uint64_t>(out.size(), range.length - offset);
           std::copy_n(shared->begin() + static_cast<long>(range.offset + offset), count,
                       out.begin());
           return BodyStep{.count = count};
         };
         return HttpBody(StreamBody{source, range.length});
       }});
}

void MemoryHub::add_pattern(const RepoName& repo, const std::string& revision,
                            const std::string& path, uint64_t bytes, uint64_t seed,
                            bool is_hashed) {
  const bool is_lfs = is_lfs_file(path, bytes, kLfsThresholdBytes);
  const std::string hash =
      is_hashed || bytes <= kHashedPatternBytes
          ? hash_pattern(seed, bytes, is_lfs)
          : file_hash_hex(FileHash::sha256, as_bytes(cat("pattern ", seed, ' ', bytes)));
  add(repo, revision,
      {{path, bytes, ids_from_hash(hash, is_lfs, bytes)},
       [seed](ByteRange range) -> Result<HttpBody> {
         const auto source = [seed, range](uint64_t offset, MutableByteSpan out) {
           const size_t count = std::min<uint64_t>(out.size(), range.length - offset);
           fill_pattern(seed, range.offset + offset, out.first(count));
           return BodyStep{.count = count};
         };
         return HttpBody(StreamBody{source, range.length});
       }});
}

void MemoryHub::add(const RepoName& repo, const std::string& revision, HubFile file) {
  MutexLock lock(mutex_);
  Repo& entry = repos_[repo];
  const std::string path = file.entry.path;
  entry.revisions[revision].insert_or_assign(path, std::move(file));
  entry.heads.erase(revision);
}

void MemoryHub::remove(const RepoName& repo, const std::string& revision, const std::string& path) {
  MutexLock lock(mutex_);
  Repo& entry = repos_[repo];
  entry.revisions[revision].erase(path);
  entry.heads.erase(revision);
}

HubRevisionPtr MemoryHub::head(Repo& repo, const std::string& revision) {
  HubRevisionPtr& known = repo.heads[revision];
  if (known) return known;
  auto made = std::make_shared<HubRevision>();
  for (const auto& [path, file] : repo.revisions[revision]) made->files.push_back(file);
  made->commit = commit_of(made->files);
  made->last_modified = kDate + static_cast<int64_t>(repo.commits.size());
  known = made;
  repo.commits[made->commit] = made;
  return known;
}

Result<std::vector<HubRepo>> MemoryHub::list_repos(RepoType type) {
  std::vector<HubRepo> out;
  if (other_ != nullptr) out = CAKE_TRY(other_->list_repos(type));
  MutexLock lock(mutex_);
  for (const auto& [name, repo] : repos_)
    if (name.type == type) out.push_back({name.id, kDate});
  std::sort(out.begin(), out.end(), [](const HubRepo& a, const HubRepo& b) { return a.id < b.id; });
  return out;
}

bool MemoryHub::has_repo(const RepoName& repo) {
  {
    MutexLock lock(mutex_);
    if (repos_.contains(repo)) return true;
  }
  return other_ != nullptr && other_->has_repo(repo);
}

void MemoryHub::get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) {
  std::vector<HubRef> refs;
  {
    MutexLock lock(mutex_);
    const auto found = repos_.find(repo);
    if (found != repos_.end()) {
      for (const auto& [name, files] : found->second.revisions) {
        refs.push_back(name_ref(name));
        refs.back().commit = head(found->second, name)->commit;
      }
    }
  }
  if (!refs.empty()) return done(std::move(refs));
  if (other_ != nullptr) return other_->get_refs(repo, std::move(done));
  done(Error{Errc::not_found, repo.id});
}

void MemoryHub::get_revision(const RepoName& repo, const std::string& revision,
                             Done<HubRevisionPtr> done) {
  HubRevisionPtr out;
  bool is_here = false;
  {
    MutexLock lock(mutex_);
    const auto found = repos_.find(repo);
    is_here = found != repos_.end();
    if (is_here) {
      Repo& entry = found->second;
      for (const auto& [name, files] : entry.revisions) {
        const HubRef ref = name_ref(name);
        const HubRevisionPtr made = head(entry, name);
        if (revision == name || revision == ref.name || revision == ref.ref) out = made;
      }
      const auto commit = entry.commits.find(revision);
      if (!out && commit != entry.commits.end()) out = commit->second;
    }
  }
  if (out) return done(out);
  if (!is_here && other_ != nullptr) return other_->get_revision(repo, revision, std::move(done));
  done(Error{Errc::not_found, revision});
}

}  // namespace cake
