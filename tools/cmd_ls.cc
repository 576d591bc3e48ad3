// cake ls
#include <fnmatch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <ostream>
#include <set>

#include "store/base/bytes.h"
#include "tools/session.h"
#include "tools/store_view.h"
#include "tools/table.h"

namespace cake {
namespace {

// More lines than any store has repos; what the parser refuses is not taken for another number.
constexpr size_t kMaxLimit = 1'000'000'000;

struct LsArguments {
  std::string pattern, sort;
  std::vector<std::string> filters;
  bool revisions = false;
  size_t limit = 0;
};

struct Row {
  StoredRepo repo;
  SetSummary sum;
  std::string id;  // "model/ORG/NAME", with --revisions "…@COMMIT"
  std::vector<std::string> refs;
};

// A number that rows are filtered and sorted by; nullopt for a key that is none.
std::optional<double> number_of(const Row& row, const std::string& key) {
  if (key == "size") return static_cast<double>(row.sum.bytes);
  if (key == "unique") return static_cast<double>(row.sum.usage.exclusive_encoded_bytes);
  if (key == "stored") return static_cast<double>(row.sum.usage.encoded_bytes);
  if (key == "ratio") return row.sum.ratio();
  if (key == "cached") return row.sum.cached_percent();
  if (key == "verified") return row.sum.verified_percent();
  if (key == "last_accessed" || key == "accessed") return static_cast<double>(row.sum.last_access);
  return std::nullopt;
}

// "size>1GB", "cached<100", "last_accessed<30d" (longer ago than).
struct Filter {
  std::string key, relation;
  double value = 0;
};

std::optional<double> parse_bytes(std::string_view text) {
  const std::optional<uint64_t> bytes = parse_size(text);
  if (!bytes) return std::nullopt;
  return static_cast<double>(*bytes);
}

// "2.9", "99.5%".
std::optional<double> parse_fraction(std::string_view text) {
  if (text.ends_with('%')) text.remove_suffix(1);
  double number = 0;
  const auto [end, failure] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (failure != std::errc() || end != text.data() + text.size() || !std::isfinite(number))
    return std::nullopt;
  return number;
}

Result<Filter> parse_filter(const std::string& text) {
  const size_t at = text.find_first_of("<>=");
  const Error error{Errc::invalid,
                    cat("--filter '", text.substr(0, 100), "': give KEY>VALUE, such as size>1GB")};
  if (at == 0 || at == std::string::npos) return error;
  const size_t end = text.find_first_not_of("<>=", at);
  if (end == std::string::npos) return error;
  Filter filter{text.substr(0, at), text.substr(at, end - at), 0};
  const std::string value = text.substr(end);
  if (!number_of(Row(), filter.key)) return error;
  if (filter.relation != "<" && filter.relation != ">" && filter.relation != "<=" &&
      filter.relation != ">=" && filter.relation != "=")
    return error;
  if (filter.key == "last_accessed" || filter.key == "accessed") {
    const std::optional<uint64_t> age = parse_seconds(value);
    const std::optional<int64_t> time = parse_rfc3339(value);
    if (!age && !time) return error;
    filter.value = static_cast<double>(time ? *time : unix_now() - static_cast<int64_t>(*age));
    return filter;
  }
  const bool is_size = filter.key != "ratio" && filter.key != "cached" && filter.key != "verified";
  const std::optional<double> number = is_size ? parse_bytes(value) : parse_fraction(value);
  if (!number) return error;
  filter.value = *number;
  return filter;
}

bool passes(const Row& row, const Filter& filter) {
  const double number = number_of(row, filter.key).value_or(0);
  if (filter.relation == "<") return number < filter.value;
  if (filter.relation == ">") return number > filter.value;
  if (filter.relation == "<=") return number <= filter.value;
  if (filter.relation == ">=") return number >= filter.value;
  return number == filter.value;
}

// "hf:" in front, as in a REF, says nothing; a name without slashes is a repo's or an author's.
bool matches(std::string_view pattern, const RepoName& repo) {
  if (pattern.starts_with("hf:")) pattern.remove_prefix(3);
  while (pattern.starts_with('/')) pattern.remove_prefix(1);
  while (pattern.ends_with('/')) pattern.remove_suffix(1);
  if (pattern.empty()) return true;
  const auto is_like = [](const std::string& glob, const std::string& name) {
    return fnmatch(glob.c_str(), name.c_str(), 0) == 0;
  };
  const std::string glob(pattern);
  return is_like(glob, stored_name(repo)) || is_like(glob, repo.id) ||
         (glob.find('/') == std::string::npos && is_like(cat(glob, "/*"), repo.id));
}

Result<std::vector<Row>> collect(Index& index, const LsArguments& arguments) {
  std::vector<Row> rows;
  const std::vector<StoredRepo> repos = CAKE_TRY(list_stored_repos(index));
  const Holders holders = CAKE_TRY(count_holders(index, repos, arguments.revisions));
  for (const StoredRepo& repo : repos) {
    if (!matches(arguments.pattern, repo.row.name)) continue;
    const std::string id = stored_name(repo.row.name);
    if (!arguments.revisions) {
      Row row{repo, CAKE_TRY(summarise(index, repo, "", holders)), id, {}};
      for (const RefRow& ref : repo.refs)
        if (!is_commit(ref.revision)) row.refs.push_back(ref.revision);
      if (!repo.snapshots.empty()) rows.push_back(std::move(row));
      continue;
    }
    for (const SnapshotRow& snapshot : repo.snapshots) {
      Row row{repo,
              CAKE_TRY(summarise(index, repo, snapshot.commit, holders)),
              cat(id, "@", snapshot.commit),
              {}};
      for (const RefRow& ref : repo.refs)
        if (ref.commit == snapshot.commit && !is_commit(ref.revision))
          row.refs.push_back(ref.revision);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

Status arrange(std::vector<Row>& rows, const LsArguments& arguments) {
  for (const std::string& text : arguments.filters) {
    const Filter filter = CAKE_TRY(parse_filter(text));
    std::erase_if(rows, [&](const Row& row) { return !passes(row, filter); });
  }
  std::string key = arguments.sort.empty() ? "id" : arguments.sort;
  const bool is_descending = key.ends_with(":desc");
  if (is_descending || key.ends_with(":asc")) key.resize(key.rfind(':'));
  if (key != "id" && !number_of(Row(), key))
    return Error{Errc::invalid, cat("--sort ", key.substr(0, 100),
                                    ": give id, size, unique, stored, ratio, cached, "
                                    "verified or last_accessed")};
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) {
    const Row& first = is_descending ? b : a;
    const Row& second = is_descending ? a : b;
    if (key == "id") return first.id < second.id;
    return number_of(first, key) < number_of(second, key);
  });
  if (arguments.limit > 0 && rows.size() > arguments.limit) rows.resize(arguments.limit);
  return {};
}

int run_ls(Context& context, const LsArguments& arguments) {
  Metrics metrics;
  const std::unique_ptr<Store> store = CAKE_TRY_RUN(context, open_store(context.config, metrics));
  std::vector<Row> rows = CAKE_TRY_RUN(context, collect(store->index(), arguments));
  CAKE_TRY_RUN(context, arrange(rows, arguments));

  std::set<std::string> sources;
  for (const Row& row : rows) sources.insert(row.repo.source);
  // People need the source only when it tells rows apart; scripts get the same columns always.
  const bool shows_source = context.format != Format::human || sources.size() > 1;
  std::vector<Table::Column> columns = {
      {"ID"},          {"SIZE", true},    {"UNIQUE", true},  {"STORED", true},
      {"RATIO", true}, {"CACHED%", true}, {"LAST_ACCESSED"}, {"REFS"}};
  columns.push_back({"VERIFIED%", true});
  if (shows_source) columns.push_back({"SOURCE"});
  Table table(columns);
  std::set<std::string> ids;
  uint64_t logical_bytes = 0;
  for (const Row& row : rows) {
    std::vector<Cell> cells = {
        row.id,
        Bytes{row.sum.bytes},
        Bytes{row.sum.usage.exclusive_encoded_bytes},
        Bytes{row.sum.usage.encoded_bytes},
        row.sum.usage.encoded_bytes == 0 ? Cell() : Cell(Ratio{row.sum.ratio()}),
        Percent{row.sum.cached_percent()},
        Time{row.sum.last_access},
        row.refs,
        Percent{row.sum.verified_percent()}};
    if (shows_source) cells.push_back(row.repo.source);
    table.add(std::move(cells));
    ids.insert(cat(row.repo.source, " ", stored_name(row.repo.row.name)));
    logical_bytes += row.sum.usage.logical_bytes;
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  if (context.format == Format::human) {
    const uint64_t disk_bytes = CAKE_TRY_RUN(context, store->disk_bytes());
    context.out << "Found " << ids.size() << " repo(s)";
    if (arguments.revisions) context.out << ", " << rows.size() << " revision(s)";
    context.out << ", " << format_size(logical_bytes) << " logical, " << format_size(disk_bytes)
                << " on disk.\n";
  }
  return kExitOk;
}

}  // namespace

void add_ls(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("ls", "List what is in the store");
  const auto arguments = std::make_shared<LsArguments>();
  verb->add_option("PATTERN", arguments->pattern, "Only repos that match, such as 'meta-llama/*'");
  verb->add_flag("--revisions", arguments->revisions, "One line a commit");
  verb->add_option("--filter", arguments->filters, "Such as 'size>1GB' or 'last_accessed<30d'")
      ->type_name("EXPR")
      ->take_all()
      ->expected(1);
  verb->add_option(
          "--sort", arguments->sort,
          "id, size, unique, stored, ratio, cached, verified, last_accessed; with :desc behind it")
      ->type_name("KEY");
  verb->add_option("--limit", arguments->limit, "At most so many lines")
      ->check(CLI::Range(size_t{1}, kMaxLimit))
      ->type_name("N");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_ls(context, *arguments); };
  });
}

}  // namespace cake
