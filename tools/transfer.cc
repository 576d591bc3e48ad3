#include "tools/transfer.h"

#include <filesystem>

namespace cake {
namespace {

// How often a transfer that waits for the disk looks whether it has caught up.
constexpr Millis kQueuePoll{20};

// What a worker waits for; the reader's callback keeps it alive when the worker no longer waits.
struct Answer {
  Mutex mutex;
  CondVar changed;
  std::optional<Result<FileReader::Slices>> slices GUARDED_BY(mutex);
};

Result<FileReader::Slices> read_window(FileReader& reader, uint64_t offset, uint64_t length,
                                       const CancelToken& stopped) {
  const auto answer = std::make_shared<Answer>();
  ReadOptions options;
  options.drives_readahead = false;  // every window is asked for anyway
  reader.read(offset, length, options, [answer](Result<FileReader::Slices> slices) {
    MutexLock lock(answer->mutex);
    answer->slices = std::move(slices);
    answer->changed.notify_all();
  });
  MutexLock lock(answer->mutex);
  while (!answer->slices) {
    if (stopped.is_cancelled()) return Error{Errc::cancelled, "interrupted"};
    answer->changed.wait_until(answer->mutex, steady_now() + Millis(100));
  }
  return std::move(*answer->slices);
}

}  // namespace

Transfer::Transfer(Client& client, std::vector<TransferFile> files)
    : client_(client), files_(std::move(files)) {
  states_.resize(files_.size());
  for (size_t i = 0; i < files_.size(); i++) {
    CAKE_CHECK(!files_[i].ranges.empty());
    for (const ByteRange& range : files_[i].ranges) states_[i].left_bytes += range.length;
    total_bytes_ = checked_add(total_bytes_, states_[i].left_bytes).value_or(UINT64_MAX);
  }
}

void Transfer::work() {
  {
    MutexLock lock(mutex_);
    at_work_++;
  }
  while (const std::optional<Window> window = take()) {
    const Status status = run(*window);
    MutexLock lock(mutex_);
    outstanding_bytes_ -= window->range.length;
    if (!status && !error_) error_ = status.error();
    changed_.notify_all();
  }
  MutexLock lock(mutex_);
  at_work_--;
  changed_.notify_all();
}

void Transfer::stop() {
  stopped_->cancel();
  MutexLock lock(mutex_);
  changed_.notify_all();
}

Transfer::Window Transfer::peek() const {
  const ByteRange& range = files_[next_.file].ranges[next_.range];
  return {next_.file,
          {range.offset + next_.offset, std::min(kWindowBytes, range.length - next_.offset)}};
}

// A disk that is slower than the link holds the transfer back, so that what was read is kept.
bool Transfer::may_start(uint64_t bytes) const {
  const uint64_t queued = client_.store().chunks().queued_bytes();
  if (outstanding_bytes_ == 0) return queued <= kMaxAtRiskBytes;
  return outstanding_bytes_ + queued + bytes <= kMaxAtRiskBytes;
}

void Transfer::advance(const Window& window) {
  const TransferFile& file = files_[next_.file];
  next_.offset += window.range.length;
  if (next_.offset < file.ranges[next_.range].length) return;
  next_ = {next_.file, next_.range + 1, 0};
  if (next_.range == file.ranges.size()) next_ = {next_.file + 1, 0, 0};
}

std::optional<Transfer::Window> Transfer::take() {
  MutexLock lock(mutex_);
  while (true) {
    if (error_ || stopped_->is_cancelled() || next_.file >= files_.size()) return std::nullopt;
    const Window window = peek();
    if (may_start(window.range.length)) {
      advance(window);
      outstanding_bytes_ += window.range.length;
      active_.insert(window.file);
      return window;
    }
    // The store says how much is queued, but not when that changes.
    changed_.wait_until(mutex_, steady_now() + kQueuePoll);
  }
}

Status Transfer::run(const Window& window) {
  const TransferFile& file = files_[window.file];
  std::shared_ptr<PartFile> target;
  if (!file.target.empty()) target = CAKE_TRY(of_this_machine(open_target(window.file)));
  if (window.range.length > 0) {
    const std::shared_ptr<FileReader> reader = CAKE_TRY(open_reader(window.file));
    const FileReader::Slices slices =
        CAKE_TRY(read_window(*reader, window.range.offset, window.range.length, *stopped_));
    uint64_t offset = window.range.offset;
    for (const ChunkSlice& slice : slices) {
      if (target) CAKE_TRY(of_this_machine(target->file().write_at(offset, slice.bytes())));
      offset += slice.length;
    }
    if (offset != window.range.end())
      return Error{Errc::corrupt,
                   cat(file.entry.path, ": the read ended at ", offset, " of ", file.entry.bytes)};
  }
  return finish_window(window);
}

Result<std::shared_ptr<FileReader>> Transfer::open_reader(size_t file) {
  {
    MutexLock lock(mutex_);
    if (states_[file].reader) return states_[file].reader;
  }
  // Two workers may open at once: it is the same reader.
  std::shared_ptr<FileReader> reader = CAKE_TRY(client_.open(files_[file].content));
  client_.store().accesses().note_content(files_[file].content);
  MutexLock lock(mutex_);
  states_[file].reader = reader;
  return reader;
}

Result<std::shared_ptr<PartFile>> Transfer::open_target(size_t file) {
  // Under the lock, so that the second worker at the file writes to the same.
  MutexLock lock(mutex_);
  if (states_[file].target) return states_[file].target;
  const std::string& target = files_[file].target;
  CAKE_TRY(make_directories(std::filesystem::path(target).parent_path().string()));
  auto opened = std::make_shared<PartFile>(CAKE_TRY(PartFile::create(target)));
  states_[file].target = opened;
  return opened;
}

Status Transfer::finish_window(const Window& window) {
  std::shared_ptr<PartFile> target;
  {
    MutexLock lock(mutex_);
    done_bytes_ += window.range.length;
    Progressing& state = states_[window.file];
    state.left_bytes -= window.range.length;
    if (state.left_bytes > 0) return {};
    target = state.target;
    state.reader.reset();
  }
  if (target) CAKE_TRY(of_this_machine(target->publish()));
  MutexLock lock(mutex_);
  states_[window.file].target.reset();
  active_.erase(window.file);
  finished_.push_back(files_[window.file].entry.path);
  return {};
}

Transfer::State Transfer::take_state() {
  MutexLock lock(mutex_);
  State state;
  const bool has_more = next_.file < files_.size() && !error_ && !stopped_->is_cancelled();
  state.is_finished = at_work_ == 0 && !has_more;
  for (const size_t file : active_) {
    const TreeEntry& entry = files_[file].entry;
    state.files.push_back({entry.path, entry.bytes - states_[file].left_bytes, entry.bytes});
  }
  state.total = {"total", done_bytes_, total_bytes_};
  state.finished = std::move(finished_);
  finished_.clear();
  state.error = error_;
  return state;
}

void Transfer::wait(SteadyTime until) const {
  MutexLock lock(mutex_);
  changed_.wait_until(mutex_, until);
}

}  // namespace cake
