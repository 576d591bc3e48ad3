// cake du (df)
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <ostream>
#include <set>

#include "tools/session.h"
#include "tools/store_view.h"
#include "tools/table.h"

namespace cake {
namespace {

struct DuArguments {
  std::vector<std::string> references;
  std::string by;
};

// Adds the contents of a repo to a growing set; what the set then takes more is the repo's share,
// so that shares add up and what several repos have in common counts for the first.
class Shares {
 public:
  explicit Shares(Index& index) : index_(index) {}

  Result<Index::SetUsage> add(const std::vector<RowId>& contents) {
    std::vector<RowId> both;
    std::set_union(all_.begin(), all_.end(), contents.begin(), contents.end(),
                   std::back_inserter(both));
    all_ = std::move(both);
    const Index::SetUsage now = CAKE_TRY(index_.set_usage(all_));
    Index::SetUsage share;
    share.logical_bytes = now.logical_bytes - std::min(before_.logical_bytes, now.logical_bytes);
    share.plain_bytes = now.plain_bytes - std::min(before_.plain_bytes, now.plain_bytes);
    share.encoded_bytes = now.encoded_bytes - std::min(before_.encoded_bytes, now.encoded_bytes);
    before_ = now;
    return share;
  }
  const Index::SetUsage& total() const { return before_; }

 private:
  Index& index_;
  std::vector<RowId> all_;  // sorted
  Index::SetUsage before_;
};

Table du_table() {
  return Table({{"WHAT"},
                {"LOGICAL", true},
                {"AFTER DEDUPE", true},
                {"AFTER COMPRESSION", true},
                {"ON DISK", true},
                {"RECLAIMABLE", true}});
}

void add_row(Table& table, const std::string& what, const Index::SetUsage& usage,
             uint64_t disk_bytes, uint64_t reclaimable) {
  table.add({what, Bytes{usage.logical_bytes}, Bytes{usage.plain_bytes}, Bytes{usage.encoded_bytes},
             Bytes{disk_bytes}, Bytes{reclaimable}});
}

// One line a repo, then what belongs to none, then the sum.
Status add_repos(Table& table, Store& store, bool only_names) {
  Index& index = store.index();
  Shares shares(index);
  uint64_t sum_of_own = 0;
  const std::vector<StoredRepo> repos = CAKE_TRY(list_stored_repos(index));
  const Holders holders = CAKE_TRY(count_holders(index, repos, false));
  for (const StoredRepo& repo : repos) {
    const RepoContents contents = CAKE_TRY(repo_contents(index, repo, ""));
    const uint64_t own = CAKE_TRY(own_bytes(index, contents.ids, holders));
    const Index::SetUsage share = CAKE_TRY(shares.add(contents.ids));
    sum_of_own += own;
    add_row(table, stored_name(repo.row.name), share, share.encoded_bytes, own);
  }
  const uint64_t disk_bytes = CAKE_TRY(store.disk_bytes());
  const Index::SetUsage total = shares.total();
  const uint64_t encoded = total.encoded_bytes;
  if (only_names) return {};
  if (encoded > sum_of_own) add_row(table, "(shared by repos)", {}, 0, encoded - sum_of_own);
  if (disk_bytes > encoded) add_row(table, "(index, padding)", {}, disk_bytes - encoded, 0);
  add_row(table, "TOTAL", total, std::max(disk_bytes, encoded), std::max(encoded, sum_of_own));
  return {};
}

Status add_store(Table& table, Store& store) {
  const Usage usage = CAKE_TRY(store.index().usage());
  const Index::SetUsage sum{usage.logical_bytes, usage.plain_bytes, usage.encoded_bytes, 0};
  add_row(table, store.directory(), sum, CAKE_TRY(store.disk_bytes()), usage.encoded_bytes);
  return {};
}

// One line a codec; the first two columns of `du` say nothing about codecs.
Status print_codecs(Context& context, Store& store) {
  Table table({{"CODEC"}, {"CHUNKS", true}, {"PLAIN", true}, {"ENCODED", true}, {"RATIO", true}});
  const auto add = [&](const std::string& name, const CodecUsage& use) {
    const double ratio =
        static_cast<double>(use.plain_bytes) / static_cast<double>(use.encoded_bytes);
    table.add({name, use.chunks, Bytes{use.plain_bytes}, Bytes{use.encoded_bytes},
               use.encoded_bytes == 0 ? Cell() : Cell(Ratio{ratio})});
  };
  CodecUsage total;
  for (const CodecUsage& use : CAKE_TRY(store.index().usage_by_codec())) {
    const std::string_view name = codec_name(use.codec);
    add(name.empty() ? cat("codec-", static_cast<unsigned>(use.codec)) : std::string(name), use);
    total.chunks += use.chunks;
    total.plain_bytes += use.plain_bytes;
    total.encoded_bytes += use.encoded_bytes;
  }
  if (context.format != Format::quiet) add("TOTAL", total);
  table.print(context.format, context.out);
  return {};
}

// The commit that a reference means in a repo of the store: empty for all, nullopt for none.
std::optional<std::string> find_commit(const StoredRepo& repo, const Reference& reference) {
  if (repo.row.name != reference.repo) return std::nullopt;
  if (reference.revision.empty() || is_commit(reference.revision)) return reference.revision;
  for (const RefRow& ref : repo.refs)
    if (ref.revision == reference.revision) return ref.commit;
  return std::nullopt;
}

// What several references come to together: a content goes with them when they name all that hold
// it, whatever each of them alone would free.
class Union {
 public:
  Status add(Index& index, const StoredRepo& repo, const std::string& commit,
             const std::string& path) {
    for (const SnapshotRow& snapshot : repo.snapshots) {
      if (!commit.empty() && snapshot.commit != commit) continue;
      const RepoContents contents = CAKE_TRY(repo_contents(index, repo, snapshot.commit, path));
      named_[{repo.row.id, snapshot.commit}].insert(contents.ids.begin(), contents.ids.end());
    }
    return {};
  }
  // `holders`: by revision.
  Result<uint64_t> reclaimable_bytes(Index& index, const Holders& holders) const {
    Holders rest = holders;
    std::set<RowId> all;
    for (const auto& [snapshot, contents] : named_)
      for (const RowId id : contents) {
        rest[id]--;
        all.insert(id);
      }
    std::erase_if(all, [&](RowId id) { return rest[id] > 0; });
    const std::vector<RowId> own(all.begin(), all.end());
    return CAKE_TRY(index.set_usage(own)).exclusive_encoded_bytes;
  }

 private:
  std::map<std::pair<RowId, std::string>, std::set<RowId>> named_;  // by repo and commit
};

Status add_references(Table& table, Store& store, const std::vector<std::string>& references,
                      bool only_names) {
  Index& index = store.index();
  const std::vector<StoredRepo> repos = CAKE_TRY(list_stored_repos(index));
  Shares shares(index);
  Union all;
  std::set<std::string> seen;
  const Holders by_repo = CAKE_TRY(count_holders(index, repos, false));
  const Holders by_revision = CAKE_TRY(count_holders(index, repos, true));
  for (const std::string& text : references) {
    const Reference reference = CAKE_TRY(parse_reference(text));
    if (!seen.insert(reference.text()).second) continue;
    bool is_known = false;
    for (const StoredRepo& repo : repos) {
      const std::optional<std::string> commit = find_commit(repo, reference);
      if (!commit) continue;
      const RepoContents contents = CAKE_TRY(repo_contents(index, repo, *commit, reference.path));
      if (!reference.path.empty() && contents.ids.empty()) continue;
      is_known = true;
      const uint64_t own =
          CAKE_TRY(own_bytes(index, contents.ids, commit->empty() ? by_repo : by_revision));
      const Index::SetUsage share = CAKE_TRY(shares.add(contents.ids));
      CAKE_TRY(all.add(index, repo, *commit, reference.path));
      add_row(table, reference.text(), share, share.encoded_bytes, own);
    }
    if (!is_known) return Error{Errc::not_found, reference.text() + " is not in the store"};
  }
  if (references.size() <= 1 || only_names) return {};
  const uint64_t reclaimable = CAKE_TRY(all.reclaimable_bytes(index, by_revision));
  add_row(table, "TOTAL", shares.total(), shares.total().encoded_bytes, reclaimable);
  return {};
}

int run_du(Context& context, const DuArguments& arguments) {
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  if (arguments.by == "codec") {
    if (!arguments.references.empty())
      return fail(context, {Errc::invalid, "--by codec is for the whole store"});
    CAKE_TRY_RUN(context, print_codecs(context, *store));
    return kExitOk;
  }
  // The next command of a script can do nothing with sums.
  const bool only_names = context.format == Format::quiet;
  Table table = du_table();
  if (!arguments.references.empty())
    CAKE_TRY_RUN(context, add_references(table, *store, arguments.references, only_names));
  else if (arguments.by == "repo")
    CAKE_TRY_RUN(context, add_repos(table, *store, only_names));
  else
    CAKE_TRY_RUN(context, add_store(table, *store));
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return kExitOk;
}

}  // namespace

void add_du(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("du", "Show what the store takes, and what it saves");
  verb->alias("df");
  const auto arguments = std::make_shared<DuArguments>();
  verb->add_option("REF", arguments->references, "Only these repos, revisions, folders or files");
  verb->add_option("--by", arguments->by, "repo or codec: one line each")
      ->check(CLI::IsMember({"repo", "codec"}))
      ->type_name("WHAT");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_du(context, *arguments); };
  });
}

}  // namespace cake
