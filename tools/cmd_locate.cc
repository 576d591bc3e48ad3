// cake locate
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <ostream>
#include <set>

#include "fs/mount_record.h"
#include "fs/node_id.h"
#include "store/base/bytes.h"
#include "store/coverage.h"
#include "tools/session.h"
#include "tools/table.h"

namespace cake {
namespace {

struct LocateArguments {
  std::string word;
  bool extents = false;
};

// A stretch of a file that lies together: in one pack, or nowhere.
struct Stretch {
  uint64_t offset = 0, length = 0, stored_bytes = 0, extents = 0;
  std::optional<uint32_t> pack;
  uint64_t pack_offset = 0;
  std::map<std::string, uint64_t> codecs;
};

// The content behind a path below a mount; its inode number says which.
Result<std::optional<ContentRow>> content_at(Store& store, const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) return last_error(path);
  if (node_kind(facts.st_ino) != NodeKind::file || !S_ISREG(facts.st_mode)) return std::nullopt;
  return store.index().find_content(node_payload(facts.st_ino));
}

Result<std::vector<Stretch>> find_runs(Index& index, const ContentRow& content, bool is_each) {
  std::vector<Stretch> runs;
  const std::optional<Recipe> recipe = CAKE_TRY(load_recipe(index, content));
  if (!recipe) {
    if (content.bytes > 0) runs.push_back({.length = content.bytes});
    return runs;
  }
  CAKE_TRY(each_extent(index, content, *recipe, [&](const KnownExtent& known) -> Status {
    const auto pack = known.location ? std::optional(known.location->pack) : std::nullopt;
    if (runs.empty() || is_each || runs.back().pack != pack) {
      runs.push_back({.offset = known.extent.offset, .pack = pack});
      if (known.location) runs.back().pack_offset = known.location->offset;
    }
    Stretch& run = runs.back();
    run.length += known.extent.length;
    run.extents++;
    if (!known.location) return {};
    run.stored_bytes += known.location->encoded_bytes;
    run.codecs[std::string(codec_name(known.location->codec))]++;
    return {};
  }));
  return runs;
}

std::string pack_path(const Store& store, const Index::PackRow& row) {
  return cat(store.directory(), "/packs/", row.name);
}

// The packs alone, each once.
Status print_packs(Context& context, Store& store, const std::vector<Stretch>& runs) {
  std::set<uint32_t> printed;
  for (const Stretch& run : runs) {
    if (!run.pack || !printed.insert(*run.pack).second) continue;
    if (const auto row = CAKE_TRY(store.index().find_pack(*run.pack)))
      context.out << printable(pack_path(store, *row)) << '\n';
  }
  return {};
}

Status print_runs(Context& context, Store& store, const std::vector<Stretch>& runs) {
  if (context.format == Format::quiet) return print_packs(context, store, runs);
  Table table({{"OFFSET", true},
               {"LENGTH", true},
               {"STATE"},
               {"EXTENTS", true},
               {"STORED", true},
               {"CODEC"},
               {"AT", true},
               {"PACK"}});
  for (const Stretch& run : runs) {
    Cell pack, at, codec;
    if (run.pack) {
      const std::optional<Index::PackRow> row = CAKE_TRY(store.index().find_pack(*run.pack));
      if (row) pack = pack_path(store, *row);
      at = run.pack_offset;
      std::vector<std::string> names;
      for (const auto& [name, count] : run.codecs) names.push_back(name);
      codec = names;
    }
    table.add({run.offset, Bytes{run.length}, run.pack ? "cached" : "missing", run.extents,
               Bytes{run.stored_bytes}, codec, at, pack});
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return {};
}

Result<std::optional<ContentRow>> find_located(Session& session, const std::string& word) {
  if (is_local_path(word)) return content_at(session.store(), word);
  const Reference reference = CAKE_TRY(parse_reference(word));
  const auto snapshot = CAKE_TRY(session.find_snapshot(reference, false));
  const std::optional<uint32_t> entry = snapshot->find_entry(reference.path);
  if (!entry)
    return Error{reference.path.empty() ? Errc::invalid : Errc::not_found,
                 cat(reference.text(), " names no file; give ORG/NAME/FILE")};
  return session.store().index().find_content(snapshot->content_id(*entry));
}

// The store of the mount that a path lies below.
std::optional<std::string> store_of_mount(const std::string& path) {
  std::error_code failure;
  const std::string whole = std::filesystem::weakly_canonical(path, failure).string();
  const Result<std::vector<MountRecord>> records = list_mount_records();
  if (failure || !records) return std::nullopt;
  std::optional<std::string> store;
  size_t longest = 0;
  for (const MountRecord& record : *records)
    if (whole.starts_with(record.mount_point + "/") && record.mount_point.size() > longest) {
      longest = record.mount_point.size();
      store = record.store;
    }
  return store;
}

int run_locate(Context& context, const LocateArguments& arguments) {
  if (is_local_path(arguments.word)) {
    const std::optional<std::string> store = store_of_mount(arguments.word);
    if (!store)
      return fail(context, {Errc::not_found, cat(arguments.word, " is below no cakefs mount")});
    CAKE_TRY_RUN(context, context.config.set("store", *store, "mount"));
  }
  const auto session = CAKE_TRY_RUN(context, Session::open(context.config));
  const auto content = CAKE_TRY_RUN(context, find_located(*session, arguments.word));
  if (!content)
    return fail(context, {Errc::not_found, cat(arguments.word, " is no file of a mount")});
  const std::vector<Stretch> runs =
      CAKE_TRY_RUN(context, find_runs(session->store().index(), *content, arguments.extents));
  CAKE_TRY_RUN(context, print_runs(context, session->store(), runs));
  return kExitOk;
}

}  // namespace

void add_locate(CLI::App& app, Run& run) {
  CLI::App* locate = app.add_subcommand("locate", "Show where the bytes of a file lie");
  const auto located = std::make_shared<LocateArguments>();
  locate->add_option("FILE", located->word, "ORG/NAME[@REV]/FILE, or a path below a mount")
      ->required();
  locate->add_flag("--extents", located->extents, "One line an extent");
  locate->callback([located, &run] {
    run = [located](Context& context) { return run_locate(context, *located); };
  });
}

}  // namespace cake
