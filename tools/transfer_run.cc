#include "tools/transfer_run.h"

#include <unistd.h>

#include <ostream>

#include "store/base/thread_pool.h"
#include "store/coverage.h"
#include "tools/progress.h"

namespace cake {
namespace {

// Of the plain bytes that were put into the store, those that it had.
std::optional<double> dedupe_percent(Metrics& metrics) {
  const auto same = static_cast<double>(metrics.counter("store.bytes_deduplicated").value());
  const auto fresh = static_cast<double>(metrics.counter("store.bytes_stored").value());
  if (same + fresh == 0) return std::nullopt;
  return 100 * same / (same + fresh);
}

// Runs the job to its end; a signal ends it early.
Transfer::State follow(Context& context, Session& session, Interrupts& interrupts, Transfer& job,
                       unsigned workers) {
  Progress progress(context.err, progress_style(context), stderr_width());
  ThreadPool pool("pull", workers);
  for (unsigned i = 0; i < workers; i++)
    pool.post(ThreadPool::Priority::demand, [&job] { job.work(); });
  while (true) {
    Transfer::State state = job.take_state();
    for (const std::string& path : state.finished) progress.finish_file(path);
    const ProgressState shown{state.files, state.total, dedupe_percent(session.metrics())};
    if (state.is_finished) {
      progress.finish(shown);
      return state;
    }
    if (interrupts.has_come()) job.stop();
    progress.update(shown);
    job.wait(steady_now() + Progress::kRedraw);
  }
}

// What was read but is not in the store: the disk was full, or failed.
Status check_stored(Store& store, const std::vector<RowId>& contents) {
  uint64_t missing_bytes = 0;
  for (const RowId id : contents) {
    const std::optional<ContentRow> content = CAKE_TRY(store.index().find_content(id));
    if (!content) continue;
    for (const ByteRange& range : CAKE_TRY(missing_ranges(store.index(), *content)))
      missing_bytes += range.length;
  }
  if (missing_bytes == 0) return {};
  return Error{Errc::no_space,
               cat(format_size(missing_bytes), " of what was fetched could not be kept in ",
                   store.directory(), ": free space there, or raise cache_size")};
}

}  // namespace

ProgressStyle progress_style(const Context& context) {
  if (!context.shows_progress) return ProgressStyle::none;
  if (context.format == Format::json) return ProgressStyle::events;
  return isatty(STDERR_FILENO) != 0 ? ProgressStyle::bars : ProgressStyle::lines;
}

Status run_transfer(Context& context, Session& session, Interrupts& interrupts,
                    std::vector<TransferFile> files, unsigned workers) {
  if (files.empty()) return {};
  std::vector<RowId> to_store;
  for (const TransferFile& file : files)
    if (file.target.empty()) to_store.push_back(file.content);
  Transfer job(session.client(), std::move(files));
  const Transfer::State state = follow(context, session, interrupts, job, workers);
  const Status flushed = session.store().chunks().flush();
  if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted; what came is kept"};
  if (state.error) return *state.error;
  CAKE_TRY(flushed);
  return check_stored(session.store(), to_store);
}

}  // namespace cake
