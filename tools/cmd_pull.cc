// cake pull (download)
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/digest.h"
#include "store/base/thread_pool.h"
#include "tools/file_choice.h"
#include "tools/interrupts.h"
#include "tools/mounts.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/transfer.h"

namespace cake {
namespace {

struct Arguments {
  std::string reference;
  std::vector<std::string> files;
  FileChoice choice;
  std::string revision, local_dir;
  unsigned max_workers = 8;
  bool force = false;
};

// A plain file that already has the hub's bytes.
Result<bool> is_up_to_date(const std::string& path, const TreeEntry& entry) {
  if (!path_exists(path)) return false;
  const bool is_lfs = !entry.ids.sha256.empty();
  if (!is_lfs && entry.ids.git_oid.empty()) return false;  // nothing to compare with
  const File file = CAKE_TRY(File::open(path, File::Mode::read));
  if (CAKE_TRY(file.size()) != entry.bytes) return false;
  FileHasher hasher(is_lfs ? FileHash::sha256 : FileHash::git_blob_sha1, entry.bytes);
  Buffer buffer(kMiB);
  for (uint64_t offset = 0; offset < entry.bytes;) {
    const size_t got = CAKE_TRY(file.read_at(offset, buffer));
    if (got == 0) return false;
    hasher.update(ByteSpan(buffer).subspan(0, got));
    offset += got;
  }
  return hasher.finish_hex() == (is_lfs ? entry.ids.sha256 : entry.ids.git_oid);
}

// What has to be moved; what is there already is left out.
Result<std::vector<TransferFile>> plan(Session& session, const Snapshot& snapshot,
                                       const Arguments& arguments) {
  std::vector<TransferFile> files;
  for (const uint32_t i : CAKE_TRY(choose_files(snapshot, arguments.choice))) {
    TransferFile file{snapshot.entries()[i], snapshot.content_id(i), ""};
    if (!arguments.local_dir.empty()) {
      file.target = arguments.local_dir + "/" + file.entry.path;
      if (!arguments.force && CAKE_TRY(is_up_to_date(file.target, file.entry))) continue;
    } else {
      const Cached cached = CAKE_TRY(session.store().index().cached(file.content));
      if (cached.bytes >= file.entry.bytes && !arguments.force) continue;
    }
    files.push_back(std::move(file));
  }
  return files;
}

int print_plan(Context& context, const std::vector<TransferFile>& files) {
  Table table({{"FILE"}, {"SIZE", true}});
  for (const TransferFile& file : files) table.add({file.entry.path, Bytes{file.entry.bytes}});
  table.print(context.format, context.out);
  return kExitOk;
}

Status transfer(Context& context, Session& session, Interrupts& interrupts,
                std::vector<TransferFile> files, unsigned workers) {
  const bool is_for_store = files.front().target.empty();
  Transfer job(session.client(), std::move(files));
  Progress progress(context.err, isatty(STDERR_FILENO) != 0, context.shows_progress);
  Transfer::State state;
  {
    ThreadPool pool("pull", workers);
    for (unsigned i = 0; i < workers; i++)
      pool.post(ThreadPool::Priority::demand, [&job] { job.work(); });
    for (state = job.state(); !state.is_finished; state = job.state()) {
      if (interrupts.has_come()) job.stop();
      progress.update(state.current, state.done_bytes, state.total_bytes);
      job.wait(steady_now() + Progress::kRedraw);
    }
  }
  progress.finish("total", state.done_bytes, state.total_bytes);
  // Also after an error or a signal: what came is kept, and the next pull goes on from there.
  const Status flushed = session.store().chunks().flush();
  if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted; what came is kept"};
  if (state.error) return *state.error;
  // Readers go on when the store is full; who fetches ahead of use wants to know.
  const uint64_t unstored = session.metrics().counter("store.chunks_unstored").value();
  if (flushed && is_for_store && unstored > 0)
    return Error{
        Errc::no_space,
        cat("the store is full: ", unstored, " part(s) were fetched but could not be kept; ",
            "raise cache_size, lower min_free, or remove or unpin something")};
  return flushed;
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

int run_pull(Context& context, Arguments arguments) {
  Interrupts interrupts;  // before the session's threads
  Reference reference = CAKE_TRY_RUN(context, parse_reference(arguments.reference));
  if (!arguments.revision.empty()) reference.revision = arguments.revision;
  if (!reference.path.empty()) arguments.choice.files.push_back(reference.path);
  for (const std::string& file : arguments.files) arguments.choice.files.push_back(file);
  if (!reference.revision.empty() && !is_valid_revision(reference.revision))
    return fail(context, {Errc::invalid, "--revision: no branch, tag or commit has this name"});

  const auto session = CAKE_TRY_RUN(context, Session::open(context.config));
  interrupts.let_through();
  const auto snapshot = CAKE_TRY_RUN(context, session->find_snapshot(reference, true));
  std::vector<TransferFile> files = CAKE_TRY_RUN(context, plan(*session, *snapshot, arguments));
  interrupts.hold();
  if (context.globals.dry_run) return print_plan(context, files);
  if (!files.empty())
    CAKE_TRY_RUN(context, transfer(context, *session, interrupts, std::move(files),
                                   std::clamp(arguments.max_workers, 1U, 64U)));
  const std::string path =
      arguments.local_dir.empty()
          ? usable_path(context.config.store_directory(), *snapshot, session->client().source())
          : std::filesystem::absolute(arguments.local_dir).lexically_normal().string();
  if (context.format == Format::json) {
    Facts facts;
    facts.add("path", path);
    facts.add("commit", snapshot->commit());
    facts.print(Format::json, context.out);
  } else {
    context.out << path << '\n';
  }
  return kExitOk;
}

}  // namespace

void add_pull(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("pull", "Fetch a repo, or files of it, ahead of use");
  verb->alias("download");
  const auto arguments = std::make_shared<Arguments>();
  verb->add_option("REF", arguments->reference, "ORG/NAME[@REV][/PATH]")->required();
  verb->add_option("FILE", arguments->files, "Files or folders of the repo; default all");
  verb->add_option("--include", arguments->choice.include, "Only files that match")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
  verb->add_option("--exclude", arguments->choice.exclude, "All but files that match")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
  verb->add_option("--revision", arguments->revision, "Branch, tag or commit")->type_name("REV");
  verb->add_option("--local-dir", arguments->local_dir, "Also write plain files into this folder")
      ->type_name("DIR");
  verb->add_option("--max-workers", arguments->max_workers, "Parts fetched at once (default 8)")
      ->type_name("N");
  verb->add_flag("--all-formats", arguments->choice.all_formats,
                 "Also weights that are there in safetensors too");
  verb->add_flag("--force", arguments->force, "Read and write again what is there");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_pull(context, *arguments); };
  });
}

}  // namespace cake
