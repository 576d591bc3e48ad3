// A content, readable: any range of it, from memory, the store, or the upstream.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "fetch/decode_ahead.h"
#include "fetch/file_cut.h"
#include "fetch/file_stream.h"
#include "fetch/stored_extents.h"

namespace cake {

class Readahead;

// A part of a chunk: what a read answers.
struct ChunkSlice {
  ChunkPtr chunk;
  uint64_t offset = 0;
  uint64_t length = 0;
  ByteSpan bytes() const { return chunk->bytes().subspan(offset, length); }
};

struct ReadOptions {
  // The caller can ask again for less (the kernel's page cache can): when the upstream is down, a
  // range that mixes present and absent bytes fails at once, so that the present ones can be had.
  bool may_ask_for_less = false;
  // Feeds the readahead; off for readers that know what they want.
  bool drives_readahead = true;
};

// What a reader tells of the way it is read to who knows its neighbours.  Called on the reader's
// threads; must not block.
struct ReaderEvents {
  std::function<void(const ContentRow&)> on_first_read;
  std::function<void(const ContentRow&, ByteRange of_next)> on_next_wanted;
};

// One a content and process, shared by all who read it.  Thread-safe.
//
// An extent is in one of: memory (cache, or `unstored_` until its location is known), the store (a
// location in its segment), a flight (asked for, with the callbacks of those who wait), or nowhere.
class FileReader : public std::enable_shared_from_this<FileReader> {
 public:
  using Slices = std::vector<ChunkSlice>;

  FileReader(std::shared_ptr<Fetcher> fetcher, ContentRow content, ReaderEvents events = {});
  ~FileReader();

  const ContentRow& content() const { return content_; }
  uint64_t bytes() const { return content_.bytes; }

  // Answers [offset, offset + length) clamped to the file, in order, from any thread: at once on
  // this one when nothing is missing.  What is on disk is read on the calling thread.  Returns
  // whether the range mixes present and absent bytes: `done` may then be a while.
  bool read(uint64_t offset, uint64_t length, ReadOptions options, Done<Slices> done);

  // Brings what is missing of `bytes`, behind everything that readers wait for.  `done` once all of
  // it came, or with the first error; what failed is not tried again.
  void prefetch(ByteRange bytes, Done<std::monostate> done);

  // Last error of the file since it was opened, for `user.cake.error`.
  std::optional<std::string> last_error() const { return trouble_.last_error(); }
  // "safetensors" or "uniform"; empty until the file was cut.
  std::string cutter_name() const;

  // For the fetcher.
  FileAddress address() const { return places_.address(); }
  const Extents& extents() const { return cut_.recipe().extents; }
  // Looks the extents up in the index again; answers those still missing after delivering the rest.
  std::vector<uint64_t> deliver_stored(const std::vector<uint64_t>& ordinals);
  // Those of a range's extents that somebody waits for.
  std::vector<uint64_t> awaited(const PlannedRange& range) const EXCLUDES(mutex_);
  // A whole extent has come.
  void arrived(uint64_t ordinal, std::shared_ptr<ChunkBuffer> chunk);
  // These extents will not come in this attempt.
  void range_ended(const std::vector<uint64_t>& ordinals, const Status& status);
  // Nor at this address in any other: denied or not_found.
  void range_refused(const std::vector<uint64_t>& ordinals, const Error& error,
                     const FileAddress& address);
  // Asks again for those that are still wanted; what nobody waits for stays readahead.
  void restart(const std::vector<uint64_t>& ordinals) EXCLUDES(mutex_);

  // For the fetcher, of servers that ignore ranges (fetch/file_stream.h).
  FileStream::WholeBody whole_body_came(const PlannedRange& wanted);
  FileStream& stream() { return stream_; }
  // Whether an extent that passes is neither stored nor on its way there.
  bool lacks(uint64_t ordinal) EXCLUDES(mutex_);
  // `next` comes next, and is not the end.
  bool stream_goes_on(uint64_t next) EXCLUDES(mutex_);
  // Answers what was left to it and is still wanted.
  std::vector<uint64_t> stream_ended() EXCLUDES(mutex_);

 private:
  using Arrival = std::function<void(const Result<ChunkPtr>&)>;
  struct Flight {
    std::vector<Arrival> waiters;   // empty: readahead
    std::vector<Arrival> watchers;  // want to know, but are no reason to try again
    unsigned attempts = 0;
    unsigned mismatches = 0;
    bool is_ahead = false;  // nobody waited when it was asked for
    SteadyTime since = steady_now();
    bool is_local = false;  // being read from the store, which takes no network
  };
  struct ReadOp;

  // The header, and any small tensors behind it, need not be asked for again.
  void adopt_head(const Buffer& head);
  bool read_extents(uint64_t offset, uint64_t length, ReadOptions options, Done<Slices> done);
  // From memory or the store; nullptr when it must be fetched.
  ChunkPtr find_local(uint64_t ordinal);
  // A stored extent turned out not to be: whoever waits for it gets it from the upstream.
  void local_flight_failed(uint64_t ordinal) EXCLUDES(mutex_);
  // Whether any of these missing extents is not just now being read from the store.
  bool needs_network(const std::vector<uint64_t>& ordinals) const EXCLUDES(mutex_);
  // Decodes on the pool what the reader of this range will want next, as far as it is stored.
  void start_decoding(uint64_t offset, uint64_t length) EXCLUDES(mutex_);
  void put(uint64_t ordinal, std::shared_ptr<const ChunkBuffer> chunk,
           std::optional<Digest> digest);
  void read_ahead(uint64_t offset, uint64_t length);
  // Makes flights that nobody waits for, and answers which.
  std::vector<uint64_t> start_missing(ByteRange bytes, const Arrival& watcher);
  void prefetch_extents(ByteRange bytes, Done<std::monostate> done);
  void complete(uint64_t ordinal, const Result<ChunkPtr>& result) EXCLUDES(mutex_);
  void fail(const std::vector<uint64_t>& ordinals, const Error& error) EXCLUDES(mutex_);

  // Constant after construction.
  const std::shared_ptr<Fetcher> fetcher_;
  const ContentRow content_;
  const std::string pack_name_;
  const ReaderEvents events_;

  std::atomic<bool> was_read_{false};

  // These synchronise themselves; their locks are leaves.
  FileTrouble trouble_;
  StoredExtents stored_;
  FilePlaces places_;
  FileCut cut_;
  FileStream stream_;

  // Guarded by mutex_.  Before the locks of cache and fetcher, which are leaves.
  mutable Mutex mutex_;
  std::map<uint64_t, Flight> flights_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, ChunkPtr> unstored_ GUARDED_BY(mutex_);
  std::unique_ptr<Readahead> readahead_ GUARDED_BY(mutex_);  // once the cut is known
  DecodeAhead decode_ahead_ GUARDED_BY(mutex_);
};

}  // namespace cake
