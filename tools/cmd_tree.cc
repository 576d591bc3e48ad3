// cake tree, cake stat
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>

#include "store/base/bytes.h"
#include "tools/session.h"
#include "tools/table.h"

namespace cake {
namespace {

struct TreeArguments {
  std::string reference;
  bool remote = false;
};

double percent_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 100 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

Result<std::unique_ptr<Session>> open_session(Context& context, const TreeArguments& arguments) {
  return Session::open(context.config,
                       arguments.remote ? Session::For::look : Session::For::command);
}

int run_tree(Context& context, const TreeArguments& arguments) {
  const Reference reference = CAKE_TRY_RUN(context, parse_reference(arguments.reference));
  const auto session = CAKE_TRY_RUN(context, open_session(context, arguments));
  const auto snapshot = CAKE_TRY_RUN(context, session->find_snapshot(reference, arguments.remote));
  Table table({{"PATH"}, {"SIZE", true}, {"CACHED%", true}});
  uint64_t bytes = 0;
  const std::vector<uint32_t> chosen =
      CAKE_TRY_RUN(context, entries_below(*snapshot, reference.path));
  for (const uint32_t i : chosen) {
    const TreeEntry& entry = snapshot->entries()[i];
    const Cached cached =
        CAKE_TRY_RUN(context, session->store().index().cached(snapshot->content_id(i)));
    table.add({entry.path, Bytes{entry.bytes}, Percent{percent_of(cached.bytes, entry.bytes)}});
    bytes = checked_add(bytes, entry.bytes).value_or(UINT64_MAX);
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  if (context.format == Format::human)
    context.out << chosen.size() << " file(s), " << format_size(bytes) << ", commit "
                << snapshot->commit() << '\n';
  return kExitOk;
}

Cell text_or_null(const std::string& text) {
  return text.empty() ? Cell() : Cell(text);
}

Result<Facts> describe_file(Session& session, const Snapshot& snapshot, uint32_t i) {
  const TreeEntry& entry = snapshot.entries()[i];
  const RowId id = snapshot.content_id(i);
  const Cached cached = CAKE_TRY(session.store().index().cached(id));
  const std::optional<ContentRow> content = CAKE_TRY(session.store().index().find_content(id));
  const std::optional<RecipeRow> recipe = CAKE_TRY(session.store().index().find_recipe(id));
  Facts facts;
  facts.add("path", entry.path);
  facts.add("repo",
            std::string(repo_type_singular(snapshot.repo().type)) + "/" + snapshot.repo().id);
  facts.add("commit", snapshot.commit());
  facts.add("size", Bytes{entry.bytes});
  facts.add("cached", Bytes{cached.bytes});
  facts.add("stored", Bytes{cached.stored_bytes});
  facts.add("sha256", text_or_null(entry.ids.sha256));
  facts.add("git_oid", text_or_null(entry.ids.git_oid));
  facts.add("xet", text_or_null(entry.ids.xet));
  facts.add("inode", id);
  if (content) {
    facts.add("mtime", Time{content->mtime});
    facts.add("verified", content->verified);
    facts.add("last_accessed", Time{content->last_access});
  }
  facts.add("format",
            recipe ? Cell(std::string(recipe->cutter == Cutter::uniform ? "bytes" : "safetensors"))
                   : Cell());
  return facts;
}

Result<Facts> describe_folder(Session& session, const Snapshot& snapshot, const std::string& path) {
  uint64_t bytes = 0, cached_bytes = 0, stored_bytes = 0;
  const std::vector<uint32_t> below = CAKE_TRY(entries_below(snapshot, path));
  for (const uint32_t i : below) {
    const Cached cached = CAKE_TRY(session.store().index().cached(snapshot.content_id(i)));
    bytes = checked_add(bytes, snapshot.entries()[i].bytes).value_or(UINT64_MAX);
    cached_bytes += cached.bytes;
    stored_bytes += cached.stored_bytes;
  }
  Facts facts;
  facts.add("path", path.empty() ? "/" : path);
  facts.add("repo",
            std::string(repo_type_singular(snapshot.repo().type)) + "/" + snapshot.repo().id);
  facts.add("commit", snapshot.commit());
  facts.add("date", Time{snapshot.date()});
  facts.add("source", session.client().source());
  facts.add("files", static_cast<uint64_t>(below.size()));
  facts.add("size", Bytes{bytes});
  facts.add("cached", Bytes{cached_bytes});
  facts.add("stored", Bytes{stored_bytes});
  return facts;
}

int run_stat(Context& context, const TreeArguments& arguments) {
  const Reference reference = CAKE_TRY_RUN(context, parse_reference(arguments.reference));
  const auto session = CAKE_TRY_RUN(context, open_session(context, arguments));
  const auto snapshot = CAKE_TRY_RUN(context, session->find_snapshot(reference, arguments.remote));
  const std::optional<uint32_t> entry = snapshot->find_entry(reference.path);
  const Facts facts =
      CAKE_TRY_RUN(context, entry ? describe_file(*session, *snapshot, *entry)
                                  : describe_folder(*session, *snapshot, reference.path));
  if (context.format == Format::quiet)  // what other commands take
    context.out << printable(Reference{snapshot->repo(), snapshot->commit(), reference.path}.text())
                << '\n';
  else
    facts.print(context.format, context.out);
  return kExitOk;
}

void add_verb(CLI::App& app, Run& run, const char* name, const char* help,
              int (*function)(Context&, const TreeArguments&)) {
  CLI::App* verb = app.add_subcommand(name, help);
  const auto arguments = std::make_shared<TreeArguments>();
  verb->add_option("REF", arguments->reference, "Repo, folder or file")->required();
  verb->add_flag("--remote", arguments->remote, "Ask the hub, even when the store has an answer");
  verb->callback([arguments, function, &run] {
    run = [arguments, function](Context& context) { return function(context, *arguments); };
  });
}

}  // namespace

void add_tree(CLI::App& app, Run& run) {
  add_verb(app, run, "tree", "List the files of a repo", run_tree);
  add_verb(app, run, "stat", "Describe a repo, folder or file", run_stat);
}

}  // namespace cake
