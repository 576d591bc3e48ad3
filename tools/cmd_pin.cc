// cake pin, unpin
#include <CLI/CLI.hpp>
#include <ostream>

#include "fetch/reference.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/index_upkeep.h"
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

int run_pin(Context& context, const std::vector<std::string>& words, bool is_pinned) {
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  std::vector<Target> targets;
  for (const std::string& word : words)
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
  }
  CAKE_TRY_RUN(context, store->chunks().flush());
  return kExitOk;
}

}  // namespace

void add_pin(CLI::App& app, Run& run) {
  for (const bool is_pinned : {true, false}) {
    CLI::App* verb = app.add_subcommand(is_pinned ? "pin" : "unpin",
                                        is_pinned ? "Keep a revision from being evicted or removed"
                                                  : "Let a revision be evicted again");
    const auto words = std::make_shared<std::vector<std::string>>();
    verb->add_option("REF", *words, "ORG/NAME[@REV]")->required();
    verb->callback([words, is_pinned, &run] {
      run = [words, is_pinned](Context& context) { return run_pin(context, *words, is_pinned); };
    });
  }
}

}  // namespace cake
