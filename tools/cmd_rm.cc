// cake rm, prune
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>

#include "fetch/reference.h"
#include "store/base/bytes.h"
#include "store/remove.h"
#include "tools/session.h"
#include "tools/store_view.h"
#include "tools/table.h"

namespace cake {
namespace {

// A revision is named by so many digits of its commit at least.
constexpr size_t kMinPrefix = 6;

// The commits of the store that begin so, each with its repo.
std::vector<RemovalTarget> find_by_prefix(const std::vector<StoredRepo>& repos,
                                          const std::string& prefix) {
  std::vector<RemovalTarget> found;
  for (const StoredRepo& repo : repos)
    for (const SnapshotRow& snapshot : repo.snapshots)
      if (snapshot.commit.starts_with(prefix))
        found.push_back({repo.source, repo.row, snapshot.commit});
  return found;
}

bool is_prefix(const std::string& text) {
  return text.size() >= kMinPrefix && is_hex(text, text.size());
}

// What a word of the command line means: a repo, a revision, or the first digits of a commit.
Result<std::vector<RemovalTarget>> resolve(const std::vector<StoredRepo>& repos,
                                           const std::string& word) {
  const Error absent{Errc::not_found, cat(printable(word), " is not in the store; see cake ls")};
  if (is_prefix(word)) {
    std::vector<RemovalTarget> found = find_by_prefix(repos, word);
    if (found.size() > 1)
      return Error{Errc::invalid,
                   cat(word, " begins ", found.size(), " commits; give more digits")};
    if (found.size() == 1) return found;
  }
  const Reference reference = CAKE_TRY(parse_reference(word));
  if (!reference.path.empty())
    return Error{Errc::invalid, cat(printable(word),
                                    ": single files are not removed; name the "
                                    "repo or a revision of it")};
  std::vector<RemovalTarget> found;
  for (const StoredRepo& repo : repos) {
    if (repo.row.name != reference.repo || (repo.snapshots.empty() && repo.refs.empty())) continue;
    if (reference.revision.empty()) {
      found.push_back({repo.source, repo.row, ""});
      continue;
    }
    std::string commit;
    for (const RefRow& ref : repo.refs)
      if (ref.revision == reference.revision) commit = ref.commit;
    for (const SnapshotRow& snapshot : repo.snapshots)
      if (commit.empty() && is_prefix(reference.revision) &&
          snapshot.commit.starts_with(reference.revision))
        commit = snapshot.commit;
    if (!commit.empty()) found.push_back({repo.source, repo.row, commit});
  }
  if (found.empty()) return absent;
  return found;
}

// A pin says "keep this", whatever is typed later.
Status check_pins(IndexUpkeep& upkeep, Index& index, const RemovalTarget& target) {
  for (const PinRow& pin : CAKE_TRY(upkeep.list_pins())) {
    if (pin.repo != target.repo.id) continue;
    const std::optional<RefRow> ref = CAKE_TRY(index.find_ref(pin.repo, pin.revision));
    const std::string commit = ref ? ref->commit : pin.revision;
    if (target.commit.empty() || commit == target.commit)
      return Error{Errc::denied, cat(stored_name(target.repo.name), "@", printable(pin.revision),
                                     " is pinned; cake unpin it first")};
  }
  return {};
}

std::string in_use(const Removed& removed) {
  if (removed.in_use_bytes == 0) return "";
  return cat("  ", format_size(removed.in_use_bytes), " stay: they are open or pinned.");
}

void print(Context& context, const Removed& removed, bool is_plan) {
  if (context.format == Format::human) {
    context.out << (is_plan ? "Would delete " : "Deleted ") << removed.snapshots << " revision(s), "
                << removed.chunks << " chunk(s); " << (is_plan ? "would free " : "freed ")
                << format_size(removed.bytes) << "." << in_use(removed) << '\n';
    return;
  }
  Facts facts;
  facts.add(is_plan ? "would_free_bytes" : "freed_bytes", Bytes{removed.bytes});
  facts.add("revisions", removed.snapshots);
  facts.add("files", removed.contents);
  facts.add("chunks", removed.chunks);
  facts.add("in_use_bytes", Bytes{removed.in_use_bytes});
  facts.print(context.format, context.out);
}

// Shows what would go, asks, and does it.
int carry_out(Context& context, const std::string& what,
              const std::function<Result<Removed>()>& plan,
              const std::function<Result<Removed>()>& act) {
  const Removed planned = CAKE_TRY_RUN(context, plan());
  if (context.globals.dry_run) {
    print(context, planned, true);
    return kExitOk;
  }
  if (planned.snapshots == 0 && planned.chunks == 0 && planned.bytes == 0) {
    print(context, planned, false);
    return kExitOk;
  }
  const std::string question = cat("About to delete ", what, ", ", format_size(planned.bytes),
                                   " on disk.", in_use(planned), " Proceed?");
  if (!is_confirmed(context, question)) return kExitFailed;
  print(context, CAKE_TRY_RUN(context, act()), false);
  return kExitOk;
}

int run_rm(Context& context, const std::vector<std::string>& words) {
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  const std::vector<StoredRepo> repos = CAKE_TRY_RUN(context, list_stored_repos(store->index()));
  std::vector<RemovalTarget> targets;
  std::string names;
  for (const std::string& word : words)
    for (RemovalTarget& target : CAKE_TRY_RUN(context, resolve(repos, word))) {
      CAKE_TRY_RUN(context, check_pins(store->upkeep(), store->index(), target));
      names += cat(names.empty() ? "" : ", ", stored_name(target.repo.name),
                   target.commit.empty() ? "" : "@" + target.commit);
      targets.push_back(std::move(target));
    }
  return carry_out(
      context, names, [&] { return plan_removal(*store, targets); },
      [&] { return remove_targets(*store, targets); });
}

struct PruneArguments {
  std::string max_size, max_age;
  bool incomplete = false, detached = false;
};

Result<PruneOptions> prune_options(const PruneArguments& arguments) {
  PruneOptions options;
  options.incomplete = arguments.incomplete;
  options.detached = arguments.detached;
  if (!arguments.max_size.empty()) {
    options.max_bytes = parse_size(arguments.max_size);
    if (!options.max_bytes)
      return Error{Errc::invalid,
                   cat("--max-size '", arguments.max_size, "': give a size, as 200G")};
  }
  if (!arguments.max_age.empty()) {
    const std::optional<uint64_t> age = parse_seconds(arguments.max_age);
    if (!age || *age > uint64_t{1} << 40)
      return Error{Errc::invalid, cat("--max-age '", arguments.max_age, "': give a time, as 30d")};
    options.max_age_s = static_cast<int64_t>(*age);
  }
  // Without a wish: what certainly nobody needs.
  if (!options.incomplete && !options.max_bytes && !options.max_age_s) options.detached = true;
  return options;
}

int run_prune(Context& context, const PruneArguments& arguments) {
  const PruneOptions options = CAKE_TRY_RUN(context, prune_options(arguments));
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  return carry_out(
      context, "what is not needed", [&] { return plan_prune(*store, options); },
      [&] { return prune(*store, options); });
}

}  // namespace

void add_rm(CLI::App& app, Run& run) {
  CLI::App* rm = app.add_subcommand("rm", "Remove repos or revisions from the store");
  const auto words = std::make_shared<std::vector<std::string>>();
  rm->add_option("TARGET", *words, "model/ORG/NAME, ORG/NAME@REV, or 6 or more digits of a commit")
      ->required();
  rm->callback(
      [words, &run] { run = [words](Context& context) { return run_rm(context, *words); }; });

  CLI::App* verb = app.add_subcommand("prune", "Remove what is not needed from the store");
  const auto arguments = std::make_shared<PruneArguments>();
  verb->add_option("--max-size", arguments->max_size,
                   "Least recently used data, until the store is this large")
      ->type_name("SIZE");
  verb->add_option("--max-age", arguments->max_age,
                   "Data that was not read for so long, such as 30d")
      ->type_name("TIME");
  verb->add_flag("--incomplete", arguments->incomplete, "Data of files that are here only in part");
  verb->add_flag("--detached", arguments->detached,
                 "Commits that no branch or tag leads to (the default)");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_prune(context, *arguments); };
  });
}

}  // namespace cake
