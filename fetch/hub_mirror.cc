#include "fetch/hub_mirror.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace cake {

namespace {

constexpr size_t kMaxRevisions = 32;
constexpr uint64_t kPieceBytes = kMiB;

// A range of a content as a body: a MiB at a time, read when the connection wants it; at most one
// piece in memory and one read under way.  What it reads is not evicted.  Thread-safe.
class StoredBody : public std::enable_shared_from_this<StoredBody> {
 public:
  StoredBody(std::shared_ptr<FileReader> reader, std::unique_ptr<const LeaseHold> lease,
             ByteRange range, std::function<void()> wake)
      : reader_(std::move(reader)),
        lease_(std::move(lease)),
        range_(range),
        wake_(std::move(wake)) {}

  // Reads the piece at `offset`; `done` when it is there, or has failed.
  void read(uint64_t offset, const std::function<void()>& done) {
    {
      MutexLock lock(mutex_);
      is_reading_ = true;
    }
    const uint64_t length = std::min(kPieceBytes, range_.length - offset);
    reader_->read(
        range_.offset + offset, length, ReadOptions{},
        [self = shared_from_this(), offset, length, done](Result<FileReader::Slices> got) {
          self->take(offset, length, std::move(got));
          done();
        });
  }

  std::optional<Error> error() const {
    MutexLock lock(mutex_);
    return error_;
  }

  BodyStep step(uint64_t offset, MutableByteSpan out) {
    if (offset >= range_.length) return {};
    for (bool has_asked = false;; has_asked = true) {
      {
        MutexLock lock(mutex_);
        if (error_) return {.kind = BodyStep::Kind::cut};
        if (offset >= first_ && offset < first_ + length_) return {.count = copy(offset, out)};
        if (is_reading_ || has_asked) return {.kind = BodyStep::Kind::wait};
        is_reading_ = true;
      }
      // What is in memory or on disk is there when this returns, and nobody need be woken for it.
      const auto has_returned = std::make_shared<std::atomic<bool>>(false);
      read(offset, [self = shared_from_this(), has_returned] {
        if (has_returned->load()) self->wake_();
      });
      has_returned->store(true);
    }
  }

 private:
  void take(uint64_t offset, uint64_t length, Result<FileReader::Slices> got) {
    MutexLock lock(mutex_);
    is_reading_ = false;
    if (!got) {
      error_ = got.error();
      return;
    }
    slices_ = std::move(*got);
    first_ = offset;
    length_ = length;
  }

  size_t copy(uint64_t offset, MutableByteSpan out) REQUIRES(mutex_) {
    uint64_t at = first_;
    size_t copied = 0;
    for (const ChunkSlice& slice : slices_) {
      const uint64_t from = std::max(offset + copied, at);
      const uint64_t end = at + slice.length;
      if (from < end && copied < out.size()) {
        const size_t count = std::min<uint64_t>(out.size() - copied, end - from);
        std::memcpy(out.data() + copied, slice.bytes().data() + (from - at), count);
        copied += count;
      }
      at = end;
    }
    return copied;
  }

  // Constant after construction.
  const std::shared_ptr<FileReader> reader_;
  const std::unique_ptr<const LeaseHold> lease_;
  const ByteRange range_;
  const std::function<void()> wake_;

  // Guarded by mutex_.  Leaf lock.  Offsets count from the start of the range.
  mutable Mutex mutex_;
  bool is_reading_ GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ GUARDED_BY(mutex_);
  FileReader::Slices slices_ GUARDED_BY(mutex_);
  uint64_t first_ GUARDED_BY(mutex_) = 0;
  uint64_t length_ GUARDED_BY(mutex_) = 0;
};

HttpBody body_of(const std::shared_ptr<StoredBody>& body, uint64_t bytes) {
  return StreamBody{
      [body](uint64_t offset, MutableByteSpan out) { return body->step(offset, out); }, bytes};
}

// `done` gets it with its first bytes, or why there are none.
void open_body(const std::shared_ptr<StoredBody>& body, uint64_t bytes, Done<HttpBody> done) {
  body->read(0, [body, bytes, done = std::move(done)] {
    if (const std::optional<Error> error = body->error())
      done(*error);
    else
      done(body_of(body, bytes));
  });
}

}  // namespace

HubMirror::HubMirror(Client& client, HubMirrorOptions options)
    : client_(client), options_(std::move(options)) {}

// --- names ---

Result<std::vector<HubRepo>> HubMirror::list_repos(RepoType type) {
  std::vector<HubRepo> out;
  const std::vector<RepoRow> repos = CAKE_TRY(client_.store().index().list_repos(client_.source()));
  for (const RepoRow& repo : repos)
    if (repo.name.type == type && repo.has_snapshot) out.push_back({repo.name.id, 0});
  std::sort(out.begin(), out.end(), [](const HubRepo& a, const HubRepo& b) { return a.id < b.id; });
  return out;
}

void HubMirror::list_author(RepoType type, const std::string& author,
                            Done<std::vector<HubRepo>> done) {
  client_.list_author(type, author, Deadline::after(options_.timeo),
                      [done = std::move(done)](Result<std::vector<std::string>> ids) {
                        std::vector<HubRepo> out;
                        if (!ids && ids.error().code != Errc::not_found) {
                          done(ids.error());
                          return;
                        }
                        if (ids) {
                          std::sort(ids->begin(), ids->end());
                          for (std::string& id : *ids) out.push_back({std::move(id), 0});
                        }
                        done(std::move(out));
                      });
}

bool HubMirror::has_repo(const RepoName& repo) {
  const Result<std::optional<RepoRow>> row =
      client_.store().index().find_repo(client_.source(), repo);
  if (!row || !*row) return false;
  const Result<std::vector<SnapshotRow>> known = client_.store().index().list_snapshots((*row)->id);
  return known && !known->empty();
}

bool HubMirror::may_have_repo(const RepoName& repo) {
  return is_valid_repo_id(repo.id);
}

void HubMirror::get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) {
  // Those that were asked for here: the hub's own list is not kept.
  const auto known = [this, self = shared_from_this(), repo]() -> Result<std::vector<HubRef>> {
    const std::optional<RepoRow> row =
        CAKE_TRY(client_.store().index().find_repo(client_.source(), repo));
    if (!row || !has_repo(repo)) return Error{Errc::not_found, repo.id};
    std::vector<HubRef> refs;
    const std::vector<RefRow> rows = CAKE_TRY(client_.store().index().list_refs(row->id));
    for (const RefRow& ref : rows) {
      if (is_commit(ref.revision)) continue;
      refs.push_back(name_ref(ref.revision));
      refs.back().commit = ref.commit;
    }
    return refs;
  };
  get_revision(repo, "main", [known, done = std::move(done)](const Result<HubRevisionPtr>& main) {
    done(main || main.error().code == Errc::not_found ? known()
                                                      : Result<std::vector<HubRef>>(main.error()));
  });
}

void HubMirror::get_revision(const RepoName& repo, const std::string& revision,
                             Done<HubRevisionPtr> done) {
  const Deadline deadline = Deadline::after(options_.timeo);
  client_.find_snapshot(
      repo, revision, false, deadline,
      [this, self = shared_from_this(), repo, revision, deadline,
       done = std::move(done)](Result<Client::SnapshotPtr> snapshot) {
        if (snapshot) {
          done(revision_of(*snapshot));
          return;
        }
        const bool is_unclear =
            snapshot.error().code == Errc::not_found && revision != "main" && !has_repo(repo);
        if (!is_unclear) {
          done(snapshot.error());
          return;
        }
        // No such revision, or no such repo?  Clients are told apart; main tells us.
        client_.find_snapshot(
            repo, "main", false, deadline,
            [error = snapshot.error(), done](const Result<Client::SnapshotPtr>&) { done(error); });
      });
}

HubRevisionPtr HubMirror::revision_of(const std::shared_ptr<const Snapshot>& snapshot) {
  {
    MutexLock lock(mutex_);
    for (auto place = revisions_.begin(); place != revisions_.end(); ++place)
      if (place->second->commit == snapshot->commit() && place->first == snapshot->repo()) {
        revisions_.splice(revisions_.begin(), revisions_, place);
        return revisions_.front().second;
      }
  }
  auto made = std::make_shared<HubRevision>();
  made->commit = snapshot->commit();
  made->last_modified = snapshot->date();
  made->files.reserve(snapshot->entries().size());
  for (uint32_t i = 0; i < snapshot->entries().size(); i++) {
    HubFile& file = made->files.emplace_back();
    file.entry = snapshot->entries()[i];
    const RowId content = snapshot->content_id(i);
    const auto open = [this, content](ByteRange range, Done<HttpBody> done) {
      if (range.length == 0) {
        done(HttpBody(std::string()));
        return;
      }
      // Before it is looked at: what is there by then stays.
      auto lease = std::make_unique<const LeaseHold>(client_.store().lease(), content);
      Result<std::shared_ptr<FileReader>> reader = client_.open(content);
      if (!reader) {
        done(reader.error());
        return;
      }
      open_body(
          std::make_shared<StoredBody>(std::move(*reader), std::move(lease), range, options_.wake),
          range.length, std::move(done));
    };
    file.open_later = open;
    // For HEAD: a body of the right length that nobody reads.
    file.open = [](ByteRange range) -> Result<HttpBody> {
      return HttpBody(StreamBody{
          [](uint64_t, MutableByteSpan) { return BodyStep{.kind = BodyStep::Kind::cut}; },
          range.length});
    };
  }
  MutexLock lock(mutex_);
  revisions_.emplace_front(snapshot->repo(), made);
  if (revisions_.size() > kMaxRevisions) revisions_.pop_back();
  return made;
}

}  // namespace cake
