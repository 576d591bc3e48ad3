// cake ps
#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <ostream>
#include <sstream>

#include "fetch/reference.h"
#include "fs/mount_record.h"
#include "store/base/bytes.h"
#include "tools/interrupts.h"
#include "tools/session.h"
#include "tools/store_view.h"
#include "tools/table.h"
#include "tools/traffic.h"

namespace cake {
namespace {

constexpr Millis kWatchInterval{2'000};

// When the record was made: the mount's age.
std::optional<int64_t> age_seconds(const MountRecord& record) {
  std::error_code failure;
  const auto made = std::filesystem::last_write_time(
      cat("/proc/", static_cast<int64_t>(record.keeper.pid)), failure);
  if (failure) return std::nullopt;
  const auto age = std::filesystem::file_time_type::clock::now() - made;
  return std::chrono::duration_cast<std::chrono::seconds>(age).count();
}

std::string age_text(int64_t seconds) {
  if (seconds < 60) return cat(seconds, "s");
  if (seconds < 3600) return cat(seconds / 60, "m");
  if (seconds < 86'400) return cat(seconds / 3600, "h", seconds / 60 % 60, "m");
  return cat(seconds / 86'400, "d", seconds / 3600 % 24, "h");
}

// How much of what a mount shows is in its store: of its repo, or of all repos known there.
class Shares {
 public:
  explicit Shares(const Config& config) : config_(config) {}

  std::optional<double> percent(const MountRecord& record) {
    const Result<double> found = find(record);
    return found ? std::optional(*found) : std::nullopt;
  }

 private:
  Result<double> find(const MountRecord& record) {
    auto& store = stores_[record.store];
    if (!store) {
      Config config = config_;
      CAKE_TRY(config.set("store", record.store, "mount"));
      store = CAKE_TRY(open_store(config, metrics_));
    }
    Index& index = store->index();
    const Result<Reference> wanted = parse_reference(record.source);
    uint64_t bytes = 0, cached_bytes = 0;
    for (const StoredRepo& repo : CAKE_TRY(list_stored_repos(index))) {
      if (!is_whole_hub(record.source) && (!wanted || repo.row.name != wanted->repo)) continue;
      std::string commit;
      if (wanted && !is_whole_hub(record.source))
        for (const RefRow& ref : repo.refs)
          if (ref.revision == (wanted->revision.empty() ? "main" : wanted->revision))
            commit = ref.commit;
      const RepoContents contents = CAKE_TRY(repo_contents(index, repo, commit));
      bytes = checked_add(bytes, contents.bytes).value_or(UINT64_MAX);
      for (const RowId id : contents.ids) cached_bytes += CAKE_TRY(index.cached(id)).bytes;
    }
    if (bytes == 0) return 0.0;
    return 100.0 * static_cast<double>(cached_bytes) / static_cast<double>(bytes);
  }

  const Config& config_;
  Metrics metrics_;
  std::map<std::string, std::unique_ptr<Store>> stores_;
};

Status print_mounts(Context& context, std::ostream& out) {
  Table table({{"MOUNT"},
               {"SOURCE"},
               {"REVISION"},
               {"CACHED%", true},
               {"FETCHED", true},
               {"RATE", true},
               {"OPEN", true},
               {"AGE", true},
               {"STORE"},
               {"KEEPER", true},
               {"WORKER", true},
               {"RESTARTS", true}});
  Shares shares(context.config);
  for (const MountRecord& record : CAKE_TRY(list_mount_records())) {
    const Result<Reference> reference = parse_reference(record.source);
    const std::optional<int64_t> age = age_seconds(record);
    Cell age_cell;
    if (age && context.format == Format::human)
      age_cell = age_text(*age);
    else if (age)
      age_cell = static_cast<uint64_t>(std::max<int64_t>(0, *age));
    const std::optional<Traffic> traffic = read_traffic(record.keeper.pid);
    const std::optional<double> percent = shares.percent(record);
    // A rate that was written long ago is none: the worker writes only what changes.
    const bool is_fresh =
        traffic && unix_now() - traffic->at <= 2 * TrafficReport::kInterval.count() / 1000 + 1;
    table.add({record.mount_point, record.source,
               reference && !reference->revision.empty() ? Cell(reference->revision) : Cell(),
               percent ? Cell(Percent{*percent}) : Cell(),
               traffic ? Cell(Bytes{traffic->fetched_bytes}) : Cell(),
               traffic ? Cell(Bytes{is_fresh ? traffic->rate : 0}) : Cell(),
               traffic ? Cell(traffic->open_files) : Cell(), age_cell, record.store,
               static_cast<uint64_t>(record.keeper.pid), static_cast<uint64_t>(record.worker_pid),
               static_cast<uint64_t>(record.generation > 0 ? record.generation - 1 : 0)});
  }
  table.print(context.format, out, context.globals.no_truncate ? 0 : terminal_width());
  return {};
}

int watch(Context& context) {
  Interrupts interrupts;
  Mutex mutex;
  CondVar never;
  while (!interrupts.has_come()) {
    std::ostringstream text;
    CAKE_TRY_RUN(context, print_mounts(context, text));
    if (context.format == Format::human) context.out << "\x1b[H\x1b[J";
    context.out << text.str() << std::flush;
    if (!context.out) return kExitOk;  // said by the caller
    const SteadyTime until = steady_now() + kWatchInterval;
    MutexLock lock(mutex);
    while (!interrupts.has_come() && steady_now() < until)
      never.wait_until(mutex, std::min(until, steady_now() + Millis(100)));
  }
  return kExitInterrupted;
}

int run_ps(Context& context, bool watches) {
  remove_stale_traffic();
  if (watches) return watch(context);
  CAKE_TRY_RUN(context, print_mounts(context, context.out));
  return kExitOk;
}

}  // namespace

void add_ps(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("ps", "List this user's mounts");
  const auto watches = std::make_shared<bool>(false);
  verb->add_flag("--watch", *watches, "Again every 2 seconds, until interrupted");
  verb->callback(
      [watches, &run] { run = [watches](Context& context) { return run_ps(context, *watches); }; });
}

}  // namespace cake
