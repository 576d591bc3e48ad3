// cake fsck
#include <CLI/CLI.hpp>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/check.h"
#include "tools/interrupts.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/transfer_run.h"

namespace cake {
namespace {

struct FsckArguments {
  bool repairs = false, rebuilds = false;
};

void print(Context& context, const CheckReport& report) {
  if (context.format == Format::json) {
    std::vector<std::string> problems, repaired;
    for (const CheckProblem& problem : report.problems)
      (problem.is_repaired ? repaired : problems)
          .push_back(cat(check_kind_name(problem.kind), ": ", problem.what));
    Facts facts;
    facts.add("packs", report.packs);
    facts.add("chunks", report.chunks);
    facts.add("contents", report.contents);
    facts.add("snapshots", report.snapshots);
    facts.add("bytes", Bytes{report.bytes});
    facts.add("problem_count", report.problem_count);
    facts.add("repaired_count", report.repaired_count);
    facts.add("problems", problems);
    facts.add("repaired", repaired);
    facts.print(Format::json, context.out);
    return;
  }
  for (const CheckProblem& problem : report.problems)
    context.out << check_kind_name(problem.kind) << '\t'
                << (problem.is_repaired ? "repaired" : "found") << '\t' << printable(problem.what)
                << '\n';
  if (context.format == Format::quiet) return;
  if (report.problem_count > report.problems.size())
    context.out << "and " << report.problem_count - report.problems.size() << " more\n";
  context.out << "Checked " << report.chunks << " chunk(s) in " << report.packs << " pack(s), "
              << report.contents << " content(s), " << report.snapshots << " snapshot(s), "
              << format_size(report.bytes) << ": " << report.problem_count << " problem(s), "
              << report.repaired_count << " repaired\n";
}

// The store says which directory it is before it can be opened.
Status set_aside(Context& context) {
  const std::string directory = context.config.store_directory();
  if (!path_exists(directory)) return Error{Errc::not_found, cat("no store is in ", directory)};
  return set_index_aside(directory);
}

int run_fsck(Context& context, const FsckArguments& arguments) {
  if (arguments.rebuilds && !context.globals.dry_run) {
    if (!is_confirmed(context, cat("Make the index of ", context.config.store_directory(),
                                   " again from its packs?")))
      return kExitFailed;
    CAKE_TRY_RUN(context, set_aside(context));
  }
  Interrupts interrupts;
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  Progress progress(context.err, progress_style(context), stderr_width());
  const auto cancel = std::make_shared<CancelToken>();
  ProgressState state;
  state.total.label = "fsck";
  CheckOptions options;
  options.repairs = (arguments.repairs || arguments.rebuilds) && !context.globals.dry_run;
  options.cancel = cancel;
  options.progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    if (interrupts.has_come()) cancel->cancel();
    state.total.done_bytes = done_bytes;
    state.total.total_bytes = total_bytes;
    progress.update(state);
  };
  const CheckReport report = CAKE_TRY_RUN(context, check_store(*store, options));
  progress.finish(state);
  print(context, report);
  return report.problem_count == report.repaired_count ? kExitOk : kExitFailed;
}

}  // namespace

void add_fsck(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("fsck", "Check that index and packs of the store agree");
  const auto arguments = std::make_shared<FsckArguments>();
  verb->add_flag("--repair", arguments->repairs,
                 "Drop what is wrong: it is fetched again when it is read");
  verb->add_flag("--rebuild", arguments->rebuilds, "Make the index again from the packs, first");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_fsck(context, *arguments); };
  });
}

}  // namespace cake
