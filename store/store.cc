#include "store/store.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "store/base/log.h"
#include "store/base/mutex.h"
#include "store/evict.h"
#include "store/index_upkeep.h"
#include "store/pack.h"

namespace cake {

namespace {

// https://bford.info/cachedir/: backup programs leave such a directory out.
constexpr std::string_view kCachedirTag =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file marks a cache directory of cakefs: what is in it can be fetched again.\n";

constexpr uint64_t kSlotBytes = 8;
// Room that a lease has from the start, so that opening a file seldom needs the disk.
constexpr uint64_t kLeaseBytes = 4096;
// Bounds what a lease of a hostile or broken process makes us read: 64 Ki open contents.
constexpr uint64_t kMaxLeaseBytes = 512 * kKiB;

std::string leases_directory(const std::string& store) {
  return store + "/leases";
}

}  // namespace

// --- Claims ---

namespace {

// Region r of content c is byte c * 2^24 + r of the file.
constexpr unsigned kRegionBits = 24;

Result<ByteRange> claim_range(RowId content, uint64_t region) {
  if (content >= uint64_t{1} << (62 - kRegionBits) || region >= uint64_t{1} << kRegionBits)
    return Error{Errc::invalid, cat("no claim for region ", region, " of content ", content)};
  return ByteRange{(content << kRegionBits) + region, 1};
}

}  // namespace

Result<Claims> Claims::open(const std::string& path) {
  return Claims(CAKE_TRY(File::open(path, File::Mode::create)));
}

Result<bool> Claims::try_claim(RowId content, uint64_t region) const {
  return file_.try_lock(CAKE_TRY(claim_range(content, region)), true);
}

Status Claims::release(RowId content, uint64_t region) const {
  return file_.unlock(CAKE_TRY(claim_range(content, region)));
}

// --- Lease ---

struct Lease::Impl {
  // Constant after construction.
  File file;

  struct Held {
    uint64_t slot = 0;
    uint64_t count = 0;
  };
  // Guarded by mutex.  Leaf lock; held over the 8-byte write, so that slots and table agree.
  Mutex mutex;
  std::map<RowId, Held> held GUARDED_BY(mutex);
  std::vector<uint64_t> free_slots GUARDED_BY(mutex);
  uint64_t slots GUARDED_BY(mutex) = 0;

  Status write_slot(uint64_t slot, RowId content) const {
    std::array<std::byte, kSlotBytes> bytes{};
    store_le(bytes.data(), content);
    return file.write_at(slot * kSlotBytes, bytes);
  }
};

Lease::Lease(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Lease::~Lease() {
  // Still locked, so that nobody takes its name for a dead process's.
  const Status removed = remove_file(impl_->file.path());
  if (!removed) log_warn(removed.error().message);
}

Result<std::unique_ptr<Lease>> Lease::open(const std::string& directory) {
  const std::string leases = leases_directory(directory);
  CAKE_TRY(make_directories(leases, 0700));
  // Between making a lease and locking it, it looks like a dead process's: one opener at a time.
  const File guard = CAKE_TRY(File::open(leases + "/.lock", File::Mode::create));
  CAKE_TRY(guard.lock({}, true));
  for (const std::string& name : CAKE_TRY(list_directory(leases))) {
    if (name == ".lock") continue;
    auto file = File::open(leases + "/" + name, File::Mode::read_write);
    if (!file && file.error().code == Errc::not_found) continue;  // its owner left just now
    if (!file) return file.error();
    if (CAKE_TRY(file->try_lock({}, true))) CAKE_TRY(remove_file(file->path()));
  }
  auto impl = std::make_unique<Impl>();
  std::random_device random;
  const std::string name = cat(::getpid(), "-", random());
  impl->file = CAKE_TRY(File::open(leases + "/" + name, File::Mode::create_new));
  // Who looks whether it is a live one's has it locked for a moment.
  CAKE_TRY(impl->file.lock({}, true));
  CAKE_TRY(impl->file.write_at(0, Buffer(kLeaseBytes)));
  return std::unique_ptr<Lease>(new Lease(std::move(impl)));
}

Status Lease::add(RowId content) {
  MutexLock lock(impl_->mutex);
  const auto found = impl_->held.find(content);
  if (found != impl_->held.end()) {
    found->second.count++;
    return {};
  }
  const bool reuse = !impl_->free_slots.empty();
  const uint64_t slot = reuse ? impl_->free_slots.back() : impl_->slots;
  if ((slot + 1) * kSlotBytes > kMaxLeaseBytes)
    return Error{Errc::unsupported, "too many open files in one mount"};
  CAKE_TRY(impl_->write_slot(slot, content));
  if (reuse)
    impl_->free_slots.pop_back();
  else
    impl_->slots++;
  impl_->held[content] = {slot, 1};
  return {};
}

Status Lease::remove(RowId content) {
  MutexLock lock(impl_->mutex);
  const auto found = impl_->held.find(content);
  if (found == impl_->held.end())
    return Error{Errc::invalid, cat("content ", content, " is not leased")};
  if (--found->second.count > 0) return {};
  const uint64_t slot = found->second.slot;
  impl_->held.erase(found);
  // A slot that cannot be cleared keeps its content from eviction and is not used again.
  CAKE_TRY(impl_->write_slot(slot, 0));
  impl_->free_slots.push_back(slot);
  return {};
}

namespace {

// The leases of processes that live.
Status each_live_lease(const std::string& directory,
                       const std::function<Status(const File&)>& each) {
  const std::string leases = leases_directory(directory);
  for (const std::string& name : CAKE_TRY(list_directory(leases))) {
    if (name == ".lock") continue;
    auto file = File::open(leases + "/" + name, File::Mode::read);
    if (!file && file.error().code == Errc::not_found) continue;
    if (!file) return file.error();
    // Who can have the lock looks at a dead process's lease; it is let go at once.
    if (CAKE_TRY(file->try_lock({}, false))) continue;
    CAKE_TRY(each(*file));
  }
  return {};
}

}  // namespace

Result<size_t> Lease::live_processes(const std::string& directory) {
  if (!path_exists(leases_directory(directory))) return size_t{0};
  size_t count = 0;
  CAKE_TRY(each_live_lease(directory, [&](const File&) -> Status {
    count++;
    return {};
  }));
  return count;
}

Result<std::vector<RowId>> Lease::all(const std::string& directory) {
  std::vector<RowId> contents;
  const auto add = [&](const File& file) -> Status {
    Buffer slots(std::min(CAKE_TRY(file.size()), kMaxLeaseBytes));
    slots.resize(CAKE_TRY(file.read_at(0, slots)) / kSlotBytes * kSlotBytes);
    for (size_t at = 0; at < slots.size(); at += kSlotBytes)
      if (const RowId content = load_le64(&slots[at]); content != 0) contents.push_back(content);
    return {};
  };
  CAKE_TRY(each_live_lease(directory, add));
  std::sort(contents.begin(), contents.end());
  contents.erase(std::unique(contents.begin(), contents.end()), contents.end());
  return contents;
}

LeaseHold::LeaseHold(Lease& lease, RowId content) : lease_(lease), content_(content) {
  const Status added = lease_.add(content_);
  is_held_ = added.ok();
  if (!added) log_warn(added.error().with("the lease of a file that is read").message);
}

LeaseHold::~LeaseHold() {
  if (!is_held_) return;
  const Status removed = lease_.remove(content_);
  if (!removed) log_warn(removed.error().message);
}

// --- Store ---

namespace {

constexpr std::string_view kIndexName = "index.db";

Error explain(const Error& error, const std::string& directory) {
  Error out = error.with("store " + directory);
  if (error.code == Errc::denied)
    out.message += "; make it writable for this user, or choose another with --store or store=";
  if (error.code == Errc::no_space)
    out.message += "; free space there, or choose another with --store or store=";
  if (error.code == Errc::corrupt)
    out.message += cat("; remove ", directory, "/", kIndexName, "* to have it made again from ",
                       directory, "/packs");
  return out;
}

// Files that root made would lock their owner out of his own store.
Status check_owner(const std::string& directory) {
  const auto owner = path_owner(cat(directory, "/", kIndexName));
  if (!owner && owner.error().code == Errc::not_found) return {};
  if (CAKE_TRY(Result<unsigned>(owner)) != ::geteuid())
    return Error{Errc::denied,
                 cat("belongs to user ", *owner, ", not to ", ::geteuid(), ": run as that user")};
  return {};
}

Status prepare_directory(const std::string& directory) {
  if (directory.empty()) return Error{Errc::invalid, "no directory given"};
  CAKE_TRY(make_directories(directory, 0700));
  CAKE_TRY(check_owner(directory));
  const std::string tag = directory + "/CACHEDIR.TAG";
  if (!path_exists(tag)) CAKE_TRY(write_file_atomically(tag, as_bytes(kCachedirTag)));
  return {};
}

unsigned thread_count(unsigned asked) {
  return asked != 0 ? asked : std::max(2u, std::thread::hardware_concurrency());
}

Result<SpaceLimits> limits_of(const StoreOptions& options) {
  SpaceLimits limits;
  if (!options.cache_size && !options.min_free) return limits;
  const DiskSpace disk = CAKE_TRY(disk_space(options.directory));
  if (options.cache_size) limits.cache_bytes = options.cache_size->bytes_of(disk.total_bytes);
  if (options.min_free) limits.min_free_bytes = options.min_free->bytes_of(disk.total_bytes);
  return limits;
}

}  // namespace

Store::Store(StoreOptions options)
    : options_(std::move(options)), budget_(options_.mem_cache_bytes), buffers_(budget_) {}

Result<std::unique_ptr<Store>> Store::open(StoreOptions options, Metrics& metrics) {
  std::unique_ptr<Store> store(new Store(std::move(options)));
  const std::string& directory = store->directory();
  const auto open_parts = [&]() -> Status {
    CAKE_TRY(prepare_directory(directory));
    store->pool_ = std::make_unique<ThreadPool>("cake-pool", thread_count(store->options_.threads));
    store->index_ = CAKE_TRY(Index::open(cat(directory, "/", kIndexName)));
    store->claims_ = std::make_unique<Claims>(CAKE_TRY(Claims::open(directory + "/claims")));
    store->lease_ = CAKE_TRY(Lease::open(directory));
    store->upkeep_ = CAKE_TRY(IndexUpkeep::open(cat(directory, "/", kIndexName)));
    store->evictor_ =
        std::make_unique<Evictor>(Space(directory, CAKE_TRY(limits_of(store->options_))),
                                  *store->index_, *store->upkeep_, store->accesses_, metrics);
    store->chunks_ = CAKE_TRY(ChunkStore::open(directory, *store->index_, store->buffers_,
                                               *store->pool_, store->options_.codec, metrics,
                                               kPackBytes, store->evictor_.get()));
    return {};
  };
  const Status opened = open_parts();
  if (!opened) return explain(opened.error(), directory);
  return store;
}

Store::~Store() {
  if (evictor_) evictor_->stop();
}

Result<uint64_t> Store::disk_bytes() const {
  return evictor_->space().used_bytes();
}

}  // namespace cake
