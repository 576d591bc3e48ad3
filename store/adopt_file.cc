#include "store/adopt_file.h"

#include <algorithm>

#include "store/base/mutex.h"
#include "store/coverage.h"
#include "store/pack_record.h"
#include "store/verify.h"

namespace cake {

namespace {

// Chunks read but not yet written: enough to keep hashing, encoding and disk busy.
constexpr uint64_t kMaxWaitingBytes = 64 * kMiB;

// What has become of the chunks under way.  Thread-safe.
class Landing {
 public:
  explicit Landing(size_t extents) : digests_(extents) {}

  void wait_for_room() {
    MutexLock lock(mutex_);
    while (waiting_bytes_ > kMaxWaitingBytes) changed_.wait(mutex_);
  }
  void sent(uint64_t bytes) {
    MutexLock lock(mutex_);
    waiting_bytes_ += bytes;
  }
  void landed(uint64_t ordinal, uint64_t bytes, const Digest& digest, const Status& status) {
    MutexLock lock(mutex_);
    waiting_bytes_ -= bytes;
    digests_[ordinal] = digest;
    if (!status && !error_) error_ = status.error();
    changed_.notify_all();
  }
  // Waits for all.
  Result<std::vector<Digest>> take() {
    MutexLock lock(mutex_);
    while (waiting_bytes_ > 0) changed_.wait(mutex_);
    if (error_) return *error_;
    return std::move(digests_);
  }

 private:
  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar changed_;
  uint64_t waiting_bytes_ GUARDED_BY(mutex_) = 0;
  std::vector<Digest> digests_ GUARDED_BY(mutex_);
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

class FileAdoption {
 public:
  FileAdoption(Store& store, const ContentRow& content, const File& file, WholeHash hash)
      : store_(store), content_(content), file_(file), hash_(std::move(hash)) {}

  Result<Adoption> run(const std::function<bool()>& should_stop) {
    Adoption result;
    result.bytes = CAKE_TRY(file_.size());
    if (result.bytes != content_.bytes) return result;
    CAKE_TRY(find_cut());
    const auto landing = std::make_shared<Landing>(extents_.count());
    const bool is_right = CAKE_TRY(read_all(landing, should_stop));
    const std::vector<Digest> digests = CAKE_TRY(landing->take());
    // Rows before names: whoever sees an extent's digest finds its chunk.
    CAKE_TRY(store_.chunks().flush());
    if (!is_right) return result;
    CAKE_TRY(publish(digests));
    result.state = Adoption::State::adopted;
    return result;
  }

 private:
  // As the content was cut before, else as its name says.
  Status find_cut() {
    std::optional<Recipe> known = CAKE_TRY(load_recipe(store_.index(), content_));
    if (known) {
      extents_ = std::move(known->extents);
      return {};
    }
    const Cutter wanted = wanted_cutter(content_.path);
    while (true) {
      const uint64_t needed = head_bytes_needed(wanted, head_, content_.bytes);
      if (needed <= head_.size()) break;
      head_.resize(needed);
      CAKE_TRY(file_.read_exactly_at(0, head_));
    }
    cut_ = cut_file(wanted, head_, content_.bytes);
    extents_ = cut_->extents;
    return {};
  }

  // Whether the hash is the content's.  Chunks go to the store without its name.
  Result<bool> read_all(const std::shared_ptr<Landing>& landing,
                        const std::function<bool()>& should_stop) {
    FileHasher hasher(hash_.kind, content_.bytes);
    for (uint64_t ordinal = 0; ordinal < extents_.count(); ordinal++) {
      if (should_stop && should_stop()) return Error{Errc::cancelled, "interrupted"};
      const Extent extent = extents_.at(ordinal);
      auto buffer = store_.buffers().allocate(extent.length);
      CAKE_TRY(file_.read_exactly_at(extent.offset, buffer->bytes()));
      hasher.update(buffer->bytes());
      landing->wait_for_room();
      landing->sent(extent.length);
      PutRequest request;
      request.ordinal = ordinal;
      request.dtype = extent.dtype;
      request.plain = std::move(buffer);
      request.done = [landing, ordinal, length = extent.length](const Digest& digest,
                                                                const Result<Location>& location) {
        landing->landed(ordinal, length, digest, location ? Status() : Status(location.error()));
      };
      store_.chunks().put(std::move(request));
    }
    return hasher.finish_hex() == hash_.hex;
  }

  Status publish(const std::vector<Digest>& digests) {
    if (cut_) CAKE_TRY(begin_recipe(store_, content_, *cut_, head_));
    const std::string name = content_pack_name(content_.source, content_.key);
    for (uint64_t first = 0; first < digests.size(); first += kPublishPortion) {
      const uint64_t end = std::min<uint64_t>(digests.size(), first + kPublishPortion);
      std::vector<PublishedExtent> extents;
      for (uint64_t i = first; i < end; i++)
        extents.push_back({content_.id, i, digests[i], std::nullopt,
                           static_cast<uint32_t>(extents_.at(i).length)});
      CAKE_TRY(store_.chunks().record_segment(name, segment_items(extents)));
      CAKE_TRY(store_.index().publish(extents, 0, 0));
    }
    return store_.index().set_verification(content_.id, Verification::verified);
  }

  Store& store_;
  const ContentRow& content_;
  const File& file_;
  const WholeHash hash_;
  Buffer head_;
  std::optional<Cut> cut_;  // when it is new
  Extents extents_;
};

}  // namespace

Result<Adoption> adopt_file(Store& store, const ContentRow& content, const File& file,
                            const std::function<bool()>& should_stop) {
  const std::optional<WholeHash> hash = whole_hash(content);
  if (!hash) return Error{Errc::invalid, cat(content.path, " has no hash to compare with")};
  const std::vector<ByteRange> missing = CAKE_TRY(missing_ranges(store.index(), content));
  if (missing.empty() && content.bytes > 0)
    return Adoption{Adoption::State::already_here, content.bytes, 0};
  Adoption result = CAKE_TRY(FileAdoption(store, content, file, *hash).run(should_stop));
  if (result.state == Adoption::State::adopted)
    for (const ByteRange& range : missing) result.new_bytes += range.length;
  return result;
}

}  // namespace cake
