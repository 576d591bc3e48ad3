// The authority for names and bytes: a hub.  Everything is asynchronous, because no FUSE worker may
// wait for a network.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/result.h"
#include "store/snapshot.h"

namespace cake {

// Called exactly once, on a thread of the upstream's, or on the caller's own before the call
// returns.  Must not block.
template <typename T>
using Done = std::function<void(Result<T>)>;

// What the hub said of a revision.
struct RevisionInfo {
  std::string commit;         // 40 hex
  int64_t last_modified = 0;  // Unix seconds; 0 when not said
  std::string canonical_id;   // the repo's present name, when it was renamed; else as asked
};

// Of a list that comes in pages: enough to know whether there is one, or all of it.
enum class ListPart { first_page, all };
struct RepoList {
  std::vector<std::string> ids;  // "ORG/NAME"
  bool is_whole = true;
};

// One file at one commit, for reading.
struct FileAddress {
  RepoName repo;
  std::string commit;
  std::string path;
  FileIds ids;
  uint64_t bytes = 0;
};

// Where the bytes of a range go, in order, from the range's first byte on.
class RangeSink {
 public:
  virtual ~RangeSink() = default;
  // A server that ignores ranges sends the whole file for a part of it.
  enum class WholeBody {
    count_off,  // what comes before the range is dropped, what comes after it not awaited
    take,       // on_bytes gets all of it, from the file's first byte on, as if that had been asked
    refuse,     // the transfer ends with Errc::upstream
  };
  // Before the first byte of such an answer.
  virtual WholeBody on_whole_body() { return WholeBody::count_off; }
  // `offset` counts from the start of the file.  Answer false to end the transfer.  Confined to one
  // thread at a time.
  virtual bool on_bytes(uint64_t offset, ByteSpan bytes) = 0;
  // Last call.  Ok when the whole range was delivered.
  virtual void on_end(Status status) = 0;
};

// Thread-safe.
//
// Metadata calls retry by themselves until the deadline; `read` is one attempt (it refreshes an
// expired signed URL, but does not retry), because the fetcher decides what to ask for next.
// A cancelled deadline token ends the call soon with Errc::cancelled.
class Upstream {
 public:
  virtual ~Upstream() = default;

  // "hf:https://huggingface.co": scheme and endpoint, the key of names in the store.
  virtual std::string source() const = 0;

  // not_found: no such repo or revision, or private and not ours.  denied: gated, token refused.
  virtual void resolve_revision(const RepoName& repo, const std::string& revision,
                                Deadline deadline, Done<RevisionInfo> done) = 0;

  // All files of a commit, in any order, directories left out.
  virtual void list_tree(const RepoName& repo, const std::string& commit, Deadline deadline,
                         Done<std::vector<TreeEntry>> done) = 0;

  // The author's repos.  not_found: there is no such author.  unsupported: repos are served by name
  // only.
  virtual void list_repos(RepoType type, const std::string& author, ListPart part,
                          Deadline deadline, Done<RepoList> done) = 0;

  // `range` lies within the file and is not empty.  `sink` is kept until its on_end.
  // upstream: malformed answer, wrong range, changed file; never delivered to the sink as bytes.
  // `is_demand`: someone waits; such a range is never queued behind others.
  virtual void read(const FileAddress& file, ByteRange range, bool is_demand, Deadline deadline,
                    std::shared_ptr<RangeSink> sink) = 0;

  // Runs `task` on one of the upstream's threads after `delay`: the timer of retries.
  virtual void after(Millis delay, std::function<void()> task) = 0;
};

}  // namespace cake
