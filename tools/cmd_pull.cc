// cake pull (download)
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/part_file.h"
#include "tools/mounts.h"
#include "tools/pull_check.h"
#include "tools/pull_plan.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/transfer_run.h"

namespace cake {
namespace {

struct PullArguments {
  std::vector<std::string> words;  // REF, its files, the next REF…
  FileChoice choice;
  PullTarget target;
  std::string revision;
  unsigned max_workers = 16;
  bool pins = false;
};

// One REF with the files that were named behind it.
struct Request {
  Reference reference;
  FileChoice choice;
};

// What a pull comes to.
struct Sums {
  uint64_t files = 0, bytes = 0, here_bytes = 0, shared_bytes = 0, fetch_bytes = 0;

  void add(const PlannedFile& file) {
    files++;
    bytes = checked_add(bytes, file.transfer.entry.bytes).value_or(UINT64_MAX);
    here_bytes += file.here_bytes;
    shared_bytes += file.shared_bytes;
    fetch_bytes += file.fetch_bytes;
  }
};

// A word behind the first is a file of the repo before it, unless it says that it is a reference.
Result<std::vector<Request>> parse_requests(const PullArguments& arguments) {
  std::vector<Request> requests;
  for (const std::string& word : arguments.words) {
    if (!requests.empty() && !word.starts_with("hf:")) {
      requests.back().choice.files.push_back(word);
      continue;
    }
    Request request{CAKE_TRY(parse_reference(word)), arguments.choice};
    if (!arguments.revision.empty()) request.reference.revision = arguments.revision;
    if (!request.reference.revision.empty() && !is_valid_revision(request.reference.revision))
      return Error{Errc::invalid, "--revision: no branch, tag or commit has this name"};
    if (!request.reference.path.empty()) request.choice.files.push_back(request.reference.path);
    requests.push_back(std::move(request));
  }
  if (requests.size() > 1 && !arguments.target.local_dir.empty())
    return Error{Errc::invalid, "--local-dir takes the files of one repo"};
  return requests;
}

std::string repo_text(const Snapshot& snapshot) {
  return cat(repo_type_singular(snapshot.repo().type), "/", snapshot.repo().id);
}

// What all requests come to: one document, however many there are.
class Report {
 public:
  Report(Context& context, size_t requests)
      : context_(context), has_many_(requests > 1), plan_(plan_columns(has_many_)) {}

  // Of a dry run.
  void add_plan(const Snapshot& snapshot, const std::vector<PlannedFile>& files) {
    for (const PlannedFile& file : files) {
      planned_.add(file);
      std::vector<Cell> row = {file.transfer.entry.path, Bytes{file.transfer.entry.bytes},
                               Bytes{file.here_bytes}, Bytes{file.shared_bytes},
                               Bytes{file.fetch_bytes}};
      if (has_many_) row.emplace_back(repo_text(snapshot));
      plan_.add(std::move(row));
    }
  }

  // Of a pull, when it is done.
  void add_result(const std::string& path, const Snapshot& snapshot, const Sums& sums) {
    if (context_.format != Format::json) {
      if (sums.shared_bytes > 0)
        say(context_, cat(format_size(sums.shared_bytes), " of ", format_size(sums.bytes),
                          " needed no fetch: the same files are here under other names"));
      context_.out << path << std::endl;  // the next repo may take its time
      return;
    }
    Facts& facts = results_.emplace_back();
    facts.add("path", path);
    facts.add("commit", snapshot.commit());
    facts.add("files", sums.files);
    facts.add("size", Bytes{sums.bytes});
    facts.add("already_here", Bytes{sums.here_bytes});
    facts.add("saved_by_dedupe", Bytes{sums.shared_bytes});
    facts.add("fetched", Bytes{sums.fetch_bytes});
    facts.add("repo", repo_text(snapshot));
  }

  // Also when a request failed: what the others came to is so.
  void print(int status) const {
    if (context_.globals.dry_run) {
      if (status == kExitOk || plan_.rows() > 0) print_plan();
    } else if (context_.format == Format::json) {
      if (has_many_)
        print_json_array(results_, context_.out);
      else if (!results_.empty())
        results_.front().print(Format::json, context_.out);
    }
  }

 private:
  static std::vector<Table::Column> plan_columns(bool has_many) {
    std::vector<Table::Column> columns = {{"FILE"},
                                          {"SIZE", true},
                                          {"ALREADY HERE", true},
                                          {"SAVED BY DEDUPE", true},
                                          {"TO FETCH", true}};
    if (has_many) columns.push_back({"REPO"});
    return columns;
  }

  void print_plan() const {
    plan_.print(context_.format, context_.out);
    if (context_.format == Format::human)
      context_.out << planned_.files << " file(s), " << format_size(planned_.bytes) << ": "
                   << format_size(planned_.here_bytes) << " already here, "
                   << format_size(planned_.shared_bytes) << " saved by dedupe, "
                   << format_size(planned_.fetch_bytes) << " to fetch\n";
  }

  Context& context_;
  const bool has_many_;
  Table plan_;
  Sums planned_;
  std::vector<Facts> results_;
};

// What earlier pulls to the same files left when they were killed.
void tidy_up(const std::string& local_dir, const std::vector<PlannedFile>& plan) {
  std::vector<std::string> targets;
  targets.reserve(plan.size());
  for (const PlannedFile& file : plan)
    targets.push_back(cat(local_dir, "/", file.transfer.entry.path));
  remove_abandoned_parts(targets);
}

// Fetches, and compares what came with the hub's hashes.  What is wrong is fetched once more.
Status transfer(Context& context, Session& session, Interrupts& interrupts,
                std::vector<PlannedFile> plan, unsigned workers) {
  std::vector<TransferFile> files;
  for (PlannedFile& file : plan) files.push_back(std::move(file.transfer));
  for (const bool is_last : {false, true}) {
    std::vector<TransferFile> lacking;
    for (const TransferFile& file : files)
      if (!file.ranges.empty()) lacking.push_back(file);
    CAKE_TRY(run_transfer(context, session, interrupts, std::move(lacking), workers));
    files = CAKE_TRY(take_wrong_files(session, interrupts, files, workers));
    for (const TransferFile& file : files)
      log_warn(cat(file.entry.path, ": its hash is not the one that the hub names; ",
                   is_last ? "dropped" : "dropped, and fetched again"));
    if (files.empty()) return {};
  }
  for (const TransferFile& file : files)
    if (!file.target.empty()) (void)::unlink(file.target.c_str());
  return Error{Errc::corrupt, cat(files.front().entry.path, " came wrong twice",
                                  files.size() > 1 ? cat(", and ", files.size() - 1, " more") : "",
                                  ": the hub, or what is in front of it, sends other bytes than "
                                  "its list promises")};
}

// Where the repo can be read now: below a mount of the same hub and store, else its reference.
std::string usable_path(const std::string& store_directory, const Snapshot& snapshot,
                        const std::string& source) {
  const std::string folder =
      snapshot.repo().type == RepoType::model
          ? snapshot.repo().id
          : cat(repo_type_plural(snapshot.repo().type), "/", snapshot.repo().id);
  if (const auto path = find_mounted(source, store_directory, cat(folder, "@", snapshot.commit())))
    return *path;
  return Reference{snapshot.repo(), snapshot.commit(), ""}.text();
}

// Before anything is fetched, so that nothing of it is evicted on the way.
Status pin(Context& context, Session& session, const Reference& reference,
           const Snapshot& snapshot) {
  const std::string& source = session.client().source();
  const std::string revision =
      reference.revision.empty() ? context.config.text("rev") : reference.revision;
  const RowId repo = CAKE_TRY(session.store().index().get_repo(source, snapshot.repo()));
  CAKE_TRY(session.store().index().put_pin(repo, revision, unix_now()));
  return session.store().chunks().record_pin(source, snapshot.repo(), revision, true);
}

int pull(Context& context, Session& session, Interrupts& interrupts, const Request& request,
         const PullArguments& arguments, Report& report) {
  interrupts.let_through();
  const auto snapshot = CAKE_TRY_RUN(context, session.find_snapshot(request.reference, true));
  std::vector<PlannedFile> plan =
      CAKE_TRY_RUN(context, plan_pull(session.store(), *snapshot, request.choice, arguments.target,
                                      context.globals.dry_run ? PullUse::look : PullUse::pull));
  interrupts.hold();
  if (plan.empty() && !snapshot->entries().empty())
    say(context, cat("no file of ", printable(snapshot->repo().id), " matches"));
  if (context.globals.dry_run) {
    report.add_plan(*snapshot, plan);
    return kExitOk;
  }
  // Not before it is sure that there is something to pull: mounts show what this says.
  CAKE_TRY_RUN(context, session.record(request.reference, *snapshot));
  if (arguments.pins) CAKE_TRY_RUN(context, pin(context, session, request.reference, *snapshot));
  if (!arguments.target.local_dir.empty()) tidy_up(arguments.target.local_dir, plan);
  Sums sums;
  for (const PlannedFile& file : plan) sums.add(file);
  CAKE_TRY_RUN(context,
               transfer(context, session, interrupts, std::move(plan), arguments.max_workers));
  const std::string& folder = arguments.target.local_dir;
  const std::string path = folder.empty() ? usable_path(context.config.store_directory(), *snapshot,
                                                        session.client().source())
                                          : CAKE_TRY_RUN(context, absolute_path(folder));
  report.add_result(path, *snapshot, sums);
  return kExitOk;
}

int run_pull(Context& context, const PullArguments& arguments) {
  Interrupts interrupts;  // before the session's threads
  const std::vector<Request> requests = CAKE_TRY_RUN(context, parse_requests(arguments));
  const auto session = CAKE_TRY_RUN(context, Session::open(context.config, Session::For::look));
  Report report(context, requests.size());
  int status = kExitOk;
  for (const Request& request : requests) {
    status = pull(context, *session, interrupts, request, arguments, report);
    if (status != kExitOk) break;
  }
  report.print(status);
  return status;
}

}  // namespace

void add_pull(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("pull", "Fetch a repo, or files of it, ahead of use");
  verb->alias("download");
  const auto arguments = std::make_shared<PullArguments>();
  verb->add_option("REF", arguments->words,
                   "ORG/NAME[@REV][/PATH], then files or folders of it; more repos as hf:REF")
      ->required();
  verb->add_option("--include", arguments->choice.include, "Only files that match")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
  verb->add_option("--exclude", arguments->choice.exclude, "All but files that match")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
  verb->add_option("--revision", arguments->revision, "Branch, tag or commit")->type_name("REV");
  verb->add_option("--local-dir", arguments->target.local_dir,
                   "Also write plain files into this folder")
      ->type_name("DIR");
  verb->add_option("--max-workers", arguments->max_workers, "Parts fetched at once (default 16)")
      ->check(CLI::Range(1U, 64U))
      ->type_name("N");
  verb->add_flag("--all-formats", arguments->choice.all_formats,
                 "Also weights that are there in a format that loaders prefer");
  verb->add_flag("--force", arguments->target.force, "Read and write again what is there");
  verb->add_flag("--pin", arguments->pins, "Also keep the revision from being evicted");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_pull(context, *arguments); };
  });
}

}  // namespace cake
