// cake pin, unpin
#include <CLI/CLI.hpp>
#include <ostream>

#include "fetch/reference.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/index_upkeep.h"
#include "tools/hot.h"
#include "tools/session.h"
#include "tools/store_view.h"
#include "tools/table.h"

namespace cake {
namespace {

// A revision of a repo in the store.
struct Target {
  StoredRepo repo;
  std::string revision;
};

Result<Target> find_target(Index& index, const Config& config, const std::string& word) {
  const Reference reference = CAKE_TRY(parse_reference(word));
  if (!reference.path.empty())
    return Error{Errc::invalid, cat(printable(word), ": a pin is for a whole revision")};
  const std::string revision = reference.revision.empty() ? config.text("rev") : reference.revision;
  for (StoredRepo& repo : CAKE_TRY(list_stored_repos(index))) {
    if (repo.row.name != reference.repo) continue;
    for (const RefRow& ref : repo.refs)
      if (ref.revision == revision) return Target{std::move(repo), revision};
    for (const SnapshotRow& snapshot : repo.snapshots)
      if (snapshot.commit == revision) return Target{std::move(repo), revision};
  }
  return Error{Errc::not_found, cat(printable(word), " is not in the store; cake pull it first")};
}

struct PinArguments {
  std::vector<std::string> words;
  bool is_hot = false;
};

// The contents that a target leads to now.
Result<std::vector<RowId>> contents_of(Index& index, const Target& target) {
  std::string commit = target.revision;
  for (const RefRow& ref : target.repo.refs)
    if (ref.revision == target.revision) commit = ref.commit;
  const auto snapshot = CAKE_TRY(index.find_snapshot(target.repo.row.id, commit));
  std::vector<RowId> contents;
  for (uint32_t i = 0; snapshot != nullptr && i < snapshot->entries().size(); i++)
    contents.push_back(snapshot->content_id(i));
  return contents;
}

// A pin keeps what is materialized from being evicted; without one it may stay or go.
Status set_hot(Context& context, Store& store, const Target& target, bool is_pinned) {
  const std::vector<RowId> contents = CAKE_TRY(contents_of(store.index(), target));
  if (!is_pinned) {
    const uint64_t in_use = CAKE_TRY(unmaterialize_contents(store, contents));
    if (in_use > 0) say(context, cat(in_use, " file(s) stay materialized: they are open"));
    return {};
  }
  const HotSums sums = CAKE_TRY(materialize_contents(context, store, contents));
  say(context, cat(sums.files, " file(s) materialized, ", format_size(sums.bytes)));
  if (sums.incomplete > 0)
    return Error{Errc::offline,
                 cat(sums.incomplete, " file(s) are not here completely: cake pull first")};
  return {};
}

// What is, or for a dry run would be.
void print_targets(Context& context, const std::vector<Target>& targets, bool is_pinned) {
  std::vector<Facts> all;
  for (const Target& target : targets) {
    Facts& facts = all.emplace_back();
    facts.add("repo", stored_name(target.repo.row.name));
    facts.add("revision", target.revision);
    facts.add("source", target.repo.source);
    facts.add("pinned", is_pinned);
  }
  print_json_array(all, context.out);
}

int run_pin(Context& context, const PinArguments& arguments, bool is_pinned) {
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  std::vector<Target> targets;
  for (const std::string& word : arguments.words)
    targets.push_back(CAKE_TRY_RUN(context, find_target(store->index(), context.config, word)));
  for (const Target& target : targets) {
    const std::string name = cat(stored_name(target.repo.row.name), "@", target.revision);
    if (context.globals.dry_run) {
      say(context, cat("would ", is_pinned ? "pin " : "unpin ", printable(name)));
      continue;
    }
    const RowId repo = target.repo.row.id;
    if (is_pinned) {
      CAKE_TRY_RUN(context, store->index().put_pin(repo, target.revision, unix_now()));
    } else if (!CAKE_TRY_RUN(context, store->upkeep().drop_pin(repo, target.revision))) {
      return fail(context, {Errc::not_found, cat(printable(name), " is not pinned")});
    }
    CAKE_TRY_RUN(context, store->chunks().record_pin(target.repo.source, target.repo.row.name,
                                                     target.revision, is_pinned));
    if (arguments.is_hot) CAKE_TRY_RUN(context, set_hot(context, *store, target, is_pinned));
  }
  CAKE_TRY_RUN(context, store->chunks().flush());
  if (context.format == Format::json) print_targets(context, targets, is_pinned);
  return kExitOk;
}

}  // namespace

void add_pin(CLI::App& app, Run& run) {
  for (const bool is_pinned : {true, false}) {
    CLI::App* verb = app.add_subcommand(is_pinned ? "pin" : "unpin",
                                        is_pinned ? "Keep a revision from being evicted or removed"
                                                  : "Let a revision be evicted again");
    const auto arguments = std::make_shared<PinArguments>();
    verb->add_option("REF", arguments->words, "ORG/NAME[@REV]")->required();
    verb->add_flag("--hot", arguments->is_hot,
                   is_pinned ? "Also keep its complete files materialized, for passthrough"
                             : "Also store its materialized files as chunks again");
    verb->callback([arguments, is_pinned, &run] {
      run = [arguments, is_pinned](Context& context) {
        return run_pin(context, *arguments, is_pinned);
      };
    });
  }
}

}  // namespace cake
