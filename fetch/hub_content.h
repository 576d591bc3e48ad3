// What a hub serves: repos, their refs, the files of a commit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fetch/http_server.h"
#include "fetch/upstream.h"
#include "store/base/result.h"
#include "store/snapshot.h"

namespace cake {

struct HubFile {
  TreeEntry entry;
  // Bytes of a range that lies within the file.  Errors: corrupt when the file is no longer the
  // one that the commit names.
  std::function<Result<HttpBody>(ByteRange)> open;
  // Set: the bytes may have to come from elsewhere first.  `done` gets the body once its first
  // bytes are here, or the error that an answer can still tell.
  std::function<void(ByteRange, Done<HttpBody>)> open_later;
};

// A repo at one commit.  Immutable, so thread-safe.
struct HubRevision {
  std::string commit;          // 40 hex
  int64_t last_modified = 0;   // Unix seconds
  std::vector<HubFile> files;  // sorted by path
  const HubFile* find(std::string_view path) const;
};
using HubRevisionPtr = std::shared_ptr<const HubRevision>;

struct HubRef {
  enum class Kind { branch, tag, convert, pull_request };
  Kind kind = Kind::branch;
  std::string name;  // as a revision in a URL: "main", "v1.0", "refs/pr/7"
  std::string ref;   // "refs/heads/main", "refs/tags/v1.0", "refs/pr/7"
  std::string commit;
};

struct HubRepo {
  std::string id;
  int64_t last_modified = 0;
};

// Thread-safe.  What may take long (reading and hashing files) is answered later.
class HubContent {
 public:
  virtual ~HubContent() = default;
  // Sorted by id.
  virtual Result<std::vector<HubRepo>> list_repos(RepoType type) = 0;
  virtual bool has_repo(const RepoName& repo) = 0;
  // Whether it is worth asking for a revision; has_repo tells afterwards.
  virtual bool may_have_repo(const RepoName& repo) { return has_repo(repo); }
  // Sorted by id; empty for an author that there is not.
  virtual void list_author(RepoType type, const std::string& author,
                           Done<std::vector<HubRepo>> done);
  // Errors: not_found  no such repo
  virtual void get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) = 0;
  // `revision` is a branch, a tag, a whole ref or a commit.
  // Errors: not_found  no such repo or revision
  virtual void get_revision(const RepoName& repo, const std::string& revision,
                            Done<HubRevisionPtr> done) = 0;
};

// The ref that a revision's name stands for: "main" is a branch, "refs/tags/v1" a tag.
HubRef name_ref(const std::string& revision);

// Commit of a list of files: SHA-1 over path, size and ids, so that equal trees have equal commits.
std::string commit_of(const std::vector<HubFile>& files);

// Text that git holds in place of an LFS file.
std::string lfs_pointer(const std::string& sha256, uint64_t bytes);

// The hashes a hub would give these bytes; `is_lfs`: sha256 of the bytes, git oid of the pointer.
FileIds ids_from_hash(const std::string& hash_hex, bool is_lfs, uint64_t bytes);

// Whether a hub keeps such a file in LFS: 10 MiB and more, and what its default .gitattributes
// name.
bool is_lfs_file(std::string_view path, uint64_t bytes, uint64_t lfs_threshold_bytes);

}  // namespace cake
