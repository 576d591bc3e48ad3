// cake export
#include <CLI/CLI.hpp>
#include <filesystem>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/part_file.h"
#include "store/coverage.h"
#include "store/verify.h"
#include "tools/block_sharing.h"
#include "tools/export_plan.h"
#include "tools/pull_plan.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/transfer_run.h"

namespace cake {
namespace {

constexpr unsigned kWorkers = 8;

struct ExportArguments {
  std::string reference, directory;
  std::string layout = "flat";
  bool shares_blocks = false;
};

// Files that share their blocks with the store, which must have all of them; the others are left
// in the list, to be copied.
Status link_files(Context& context, Session& session, Interrupts& interrupts,
                  const std::string& directory, std::vector<TransferFile>& files) {
  const BlockSharing sharing = CAKE_TRY(BlockSharing::open(context, session.store()));
  CAKE_TRY(of_this_machine(sharing.check(directory)));
  std::vector<TransferFile> to_fetch;
  for (const TransferFile& file : files) {
    const auto content = CAKE_TRY(session.store().index().find_content(file.content));
    if (!content || content->bytes < Materializer::kLeastBytes) continue;
    std::vector<ByteRange> missing = CAKE_TRY(missing_ranges(session.store().index(), *content));
    if (!missing.empty()) to_fetch.push_back({file.entry, file.content, "", std::move(missing)});
  }
  CAKE_TRY(run_transfer(context, session, interrupts, std::move(to_fetch), kWorkers));
  std::vector<TransferFile> to_copy;
  for (TransferFile& file : files) {
    if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted; what came is kept"};
    CAKE_TRY(of_this_machine(
        make_directories(std::filesystem::path(file.target).parent_path().string())));
    if (CAKE_TRY(sharing.put(file.content, file.target)) != BlockSharing::Put::done)
      to_copy.push_back(std::move(file));
  }
  files = std::move(to_copy);
  return {};
}

// What was written is read back: the store, the disk and this program are all in between.
Status check_written(Store& store, Interrupts& interrupts, const std::vector<TransferFile>& files) {
  for (const TransferFile& file : files) {
    if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted"};
    const std::optional<ContentRow> content = CAKE_TRY(store.index().find_content(file.content));
    if (!content || !whole_hash(*content)) continue;  // the hub gives nothing to compare with
    if (CAKE_TRY(has_hub_bytes(file.target, file.entry))) continue;
    CAKE_TRY(of_this_machine(remove_file(file.target)));
    return Error{Errc::corrupt, cat(file.target,
                                    ": what was written does not have the hub's hash, and was "
                                    "removed; see cake verify --repair")};
  }
  return {};
}

int run_export(Context& context, const ExportArguments& arguments) {
  Interrupts interrupts;
  const Reference reference = CAKE_TRY_RUN(context, parse_reference(arguments.reference));
  const auto session = CAKE_TRY_RUN(context, Session::open(context.config));
  interrupts.let_through();
  const auto snapshot = CAKE_TRY_RUN(context, session->find_snapshot(reference, false));
  const std::vector<uint32_t> entries =
      CAKE_TRY_RUN(context, entries_below(*snapshot, reference.path));
  const std::string directory = CAKE_TRY_RUN(context, absolute_path(arguments.directory));
  const std::string revision =
      reference.revision.empty() ? context.config.text("rev") : reference.revision;
  const ExportPlan plan = CAKE_TRY_RUN(
      context, plan_export(*snapshot, entries, revision, directory,
                           arguments.layout == "hf" ? ExportLayout::hf : ExportLayout::flat));
  interrupts.hold();
  if (context.globals.dry_run) {
    Table table({{"FILE"}, {"SIZE", true}});
    for (const TransferFile& file : plan.files) table.add({file.target, Bytes{file.entry.bytes}});
    table.print(context.format, context.out);
    return kExitOk;
  }
  CAKE_TRY_RUN(context, of_this_machine(make_directories(directory)));
  std::vector<TransferFile> to_copy = plan.files;
  std::vector<std::string> targets;
  for (const TransferFile& file : to_copy) targets.push_back(file.target);
  remove_abandoned_parts(targets);
  if (arguments.shares_blocks)
    CAKE_TRY_RUN(context, link_files(context, *session, interrupts, directory, to_copy));
  CAKE_TRY_RUN(context, run_transfer(context, *session, interrupts, std::move(to_copy), kWorkers));
  CAKE_TRY_RUN(context, check_written(session->store(), interrupts, plan.files));
  CAKE_TRY_RUN(context, of_this_machine(finish_export(plan)));
  if (context.format == Format::json) {
    Facts facts;
    facts.add("path", plan.path);
    facts.add("commit", snapshot->commit());
    facts.add("written", static_cast<uint64_t>(plan.files.size()));
    facts.add("already_there", plan.kept);
    facts.print(Format::json, context.out);
  } else {
    context.out << plan.path << '\n';
  }
  return kExitOk;
}

}  // namespace

void add_export(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("export", "Write a repo as plain files or as a hub cache");
  const auto arguments = std::make_shared<ExportArguments>();
  verb->add_option("REF", arguments->reference, "Repo or folder")->required();
  verb->add_option("DIR", arguments->directory, "Where to")->required();
  verb->add_option("--layout", arguments->layout,
                   "flat (default): the repo's own paths; hf: a Hugging Face cache")
      ->check(CLI::IsMember({"flat", "hf"}))
      ->type_name("NAME");
  verb->add_option_function<std::string>(
          "--link",
          [arguments](const std::string& kind) { arguments->shares_blocks = kind == "reflink"; },
          "copy (default); reflink: share blocks with the store's materialized files")
      ->check(CLI::IsMember({"copy", "reflink"}))
      ->type_name("KIND");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_export(context, *arguments); };
  });
}

}  // namespace cake
