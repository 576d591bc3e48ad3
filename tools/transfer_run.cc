#include "tools/transfer_run.h"

#include <unistd.h>

#include <cstdlib>
#include <ostream>
#include <thread>

#include "store/base/thread_pool.h"
#include "store/coverage.h"
#include "tools/progress.h"

namespace cake {
namespace {

// A file whose shared chunks were evicted under it is read once more, and once more.
constexpr unsigned kMaxRounds = 3;
// What found no room is asked for again if it is not more, and after as long as a store that was
// found full is taken to be full (store/evict.cc).
constexpr uint64_t kAskedForAgain = 64 * kMiB;
constexpr Millis kRoomPatience{3'500};
constexpr Millis kLookForSignal{100};

// Of the plain bytes that were put into the store, those that it had.
std::optional<double> dedupe_percent(Metrics& metrics) {
  const auto same = static_cast<double>(metrics.counter("store.bytes_deduplicated").value());
  const auto fresh = static_cast<double>(metrics.counter("store.bytes_stored").value());
  if (same + fresh == 0) return std::nullopt;
  return 100 * same / (same + fresh);
}

struct Followed {
  Transfer::State state;
  Status flushed;
};

// Runs the job to its end; a signal ends it early.  What came is written out, also after an error.
Followed follow(Context& context, Session& session, Interrupts& interrupts, Transfer& job,
                unsigned workers) {
  Progress progress(context.err, progress_style(context), stderr_width());
  ThreadPool pool("pull", workers);
  for (unsigned i = 0; i < workers; i++)
    pool.post(ThreadPool::Priority::demand, [&job] { job.work(); });
  while (true) {
    Transfer::State state = job.take_state();
    for (const std::string& path : state.finished) progress.finish_file(path);
    if (state.is_finished) {
      // What is not stored yet is not yet counted as new or as known.
      Status flushed = session.store().chunks().flush();
      progress.finish({state.files, state.total, dedupe_percent(session.metrics())});
      return {std::move(state), std::move(flushed)};
    }
    if (interrupts.has_come()) job.stop();
    progress.update({state.files, state.total, dedupe_percent(session.metrics())});
    job.wait(steady_now() + Progress::kRedraw);
  }
}

// Of the files that go to the store, what it does not have: the disk was full or failed, or chunks
// that it had were evicted by another process before these files had rows that kept them.
Result<std::vector<TransferFile>> still_missing(Store& store,
                                                const std::vector<TransferFile>& files) {
  std::vector<TransferFile> missing;
  for (const TransferFile& file : files) {
    if (!file.target.empty()) continue;
    const std::optional<ContentRow> content = CAKE_TRY(store.index().find_content(file.content));
    if (!content) continue;
    std::vector<ByteRange> ranges = CAKE_TRY(missing_ranges(store.index(), *content));
    if (!ranges.empty()) missing.push_back({file.entry, file.content, "", std::move(ranges)});
  }
  return missing;
}

uint64_t bytes_of(const std::vector<TransferFile>& files) {
  uint64_t bytes = 0;
  for (const TransferFile& file : files)
    for (const ByteRange& range : file.ranges) bytes += range.length;
  return bytes;
}

void wait_for_room(Interrupts& interrupts) {
  const SteadyTime end = steady_now() + kRoomPatience;
  while (!interrupts.has_come() && steady_now() < end) std::this_thread::sleep_for(kLookForSignal);
}

}  // namespace

ProgressStyle progress_style(const Context& context) {
  if (!context.shows_progress) return ProgressStyle::none;
  if (context.format == Format::json) return ProgressStyle::events;
  // Bars move the cursor, which not all terminals can.
  const char* terminal = std::getenv("TERM");
  const bool can_move =
      terminal != nullptr && *terminal != '\0' && std::string_view(terminal) != "dumb";
  return isatty(STDERR_FILENO) != 0 && can_move ? ProgressStyle::bars : ProgressStyle::lines;
}

Status run_transfer(Context& context, Session& session, Interrupts& interrupts,
                    std::vector<TransferFile> files, unsigned workers) {
  Store& store = session.store();
  // Nobody evicts what is being pulled.
  std::vector<std::unique_ptr<const LeaseHold>> leases;
  for (const TransferFile& file : files)
    leases.push_back(std::make_unique<const LeaseHold>(store.lease(), file.content));
  for (unsigned round = 0; !files.empty(); round++) {
    const uint64_t asked_bytes = bytes_of(files);
    Transfer job(session.client(), files);
    const auto [state, flushed] = follow(context, session, interrupts, job, workers);
    if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted; what came is kept"};
    if (state.error) return *state.error;
    CAKE_TRY(flushed);
    files = CAKE_TRY(still_missing(store, files));
    if (files.empty()) break;
    const uint64_t missing_bytes = bytes_of(files);
    // A full store keeps nothing however often it is asked; a busy one may have no room just now.
    const bool is_vain = missing_bytes >= asked_bytes;
    if (round == kMaxRounds || (is_vain && missing_bytes > kAskedForAgain))
      return Error{Errc::no_space,
                   cat(format_size(missing_bytes), " of what was fetched could not be kept in ",
                       store.directory(), ": free space there, or raise cache_size")};
    if (is_vain) wait_for_room(interrupts);
  }
  return {};
}

}  // namespace cake
