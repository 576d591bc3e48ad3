#include "tools/args.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/log.h"
#include "store/base/version.h"
#include "tools/table.h"

namespace cake {
namespace {

constexpr const char* kFooter =
    "REF is [hf:]ORG/NAME[@REV][/PATH], hf://datasets/ORG/NAME, or what `cake ls` prints of the "
    "hub.\n"
    "Settings: cakefs.conf(5), CAKE_* in the environment, `cake config`.  Manual: man cake";

// A script's variable that is not set must not become the default: `cake --store "$DIR" prune -y`.
std::string check_not_empty(const std::string& value) {
  return value.empty() ? "an empty value" : "";
}

void add_globals(CLI::App& app, Globals& globals) {
  app.add_option("--format", globals.format, "auto, human, json or quiet")
      ->check(CLI::IsMember({"auto", "human", "json", "quiet"}))
      ->type_name("FORMAT");
  app.add_flag("--json", globals.json, "Same as --format json");
  app.add_flag("-q,--quiet", globals.quiet, "Only names and numbers, for scripts");
  app.add_flag("--no-truncate", globals.no_truncate, "Never cut lines to the terminal");
  app.add_option("--store,--cache-dir", globals.store, "Store directory")
      ->check(check_not_empty)
      ->type_name("DIR");
  app.add_option("--token-file", globals.token_file, "File that holds the access token")
      ->check(check_not_empty)
      ->type_name("FILE");
  app.add_option("--endpoint", globals.endpoint, "Address of the hub")
      ->check(check_not_empty)
      ->type_name("URL");
  app.add_flag("--offline", globals.offline, "Never use the network");
  app.add_flag("--no-progress", globals.no_progress, "No progress on stderr");
  app.add_flag("-y,--yes", globals.yes, "Answer questions with yes");
  app.add_flag("--dry-run", globals.dry_run, "Say what would be done, and do nothing");
  app.add_flag("-v,--verbose", globals.verbose, "Log more to stderr");
  app.set_version_flag("--version", cat("cake ", version()));
}

void add_verbs(CLI::App& app, Run& run) {
  add_mount(app, run);
  add_ps(app, run);
  add_pull(app, run);
  add_ls(app, run);
  add_tree(app, run);
  add_cat(app, run);
  add_du(app, run);
  add_rm(app, run);
  add_pin(app, run);
  add_inspect(app, run);
  add_diff(app, run);
  add_locate(app, run);
  add_verify(app, run);
  add_fsck(app, run);
  add_recompress(app, run);
  add_import(app, run);
  add_export(app, run);
  add_serve(app, run);
  add_config(app, run);
  add_doctor(app, run);
  add_completion(app, run);
  for (CLI::App* verb : app.get_subcommands({}))
    for (CLI::Option* option : verb->get_options())
      if (option->get_items_expected_max() > 0) option->check(check_not_empty);
}

// "--local-dir=": the parser would take the next word for the value, though it be --dry-run.
std::optional<std::string> find_flag_without_value(const std::vector<std::string>& args) {
  for (const std::string& arg : args) {
    if (arg == "--") break;
    if (arg.starts_with("--") && arg.find('=') == arg.size() - 1) return arg;
  }
  return std::nullopt;
}

// `help` and `help VERB` as the flag; what is no verb is left for the parser to refuse.
std::vector<std::string> as_flags(const CLI::App& app, std::vector<std::string> args) {
  if (args.empty() || args.front() != "help") return args;
  args.erase(args.begin());
  const auto is_it = [&](const CLI::App* verb) { return verb->check_name(args.front()); };
  if (args.empty() || !app.get_subcommands(is_it).empty()) args.emplace_back("--help");
  return args;
}

// CLI11's own message says little about a mistyped verb or flag.
std::string explain(const CLI::App& app, const CLI::ParseError& error,
                    const std::vector<std::string>& remaining) {
  const CLI::App* chosen = app.get_subcommands().empty() ? nullptr : app.get_subcommands().front();
  std::vector<std::string> names;
  std::string wrong;
  // Of those that no global flag took as its value.
  for (const std::string& arg : remaining) {
    if (wrong.empty() && chosen == nullptr && !arg.empty() && arg[0] != '-') {
      wrong = arg;
      for (const CLI::App* verb : app.get_subcommands({}))
        if (!verb->get_group().empty()) names.push_back(verb->get_name());
    }
  }
  // What is required and absent was perhaps meant by the flag.
  if (wrong.empty() && (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr ||
                        dynamic_cast<const CLI::RequiredError*>(&error) != nullptr)) {
    // An unknown flag: compare with those of the verb and the global ones.
    for (const std::string& arg : remaining)
      if (wrong.empty() && arg.size() > 1 && arg[0] == '-' && arg != "--")
        wrong = arg.substr(0, arg.find('='));
    for (const CLI::App* scope : {&app, chosen})
      for (const CLI::Option* option :
           scope == nullptr ? std::vector<const CLI::Option*>() : scope->get_options())
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  if (wrong.empty() || names.empty()) return error.what();
  const std::vector<std::string_view> known(names.begin(), names.end());
  const std::optional<std::string> near = nearest_word(wrong, known);
  return cat(wrong[0] == '-' ? "unknown flag '" : "unknown command '", wrong, "'",
             near ? cat("; did you mean '", *near, "'?") : std::string("; see cake --help"));
}

bool is_switched_on(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

int end_output(std::ostream& out, std::ostream& err, int status) {
  out.flush();
  if (out) return status;
  // A full disk, or a reader that went away.
  err << "cake: writing the output failed\n";
  return status == kExitOk ? kExitFailed : status;
}

}  // namespace

Result<Config> load_config(const Globals& globals) {
  Config config = CAKE_TRY(Config::load(ConfigSources::of_process(true)));
  if (!globals.store.empty()) CAKE_TRY(config.set("store", globals.store, "--store"));
  if (!globals.token_file.empty())
    CAKE_TRY(config.set("token_file", globals.token_file, "--token-file"));
  if (!globals.endpoint.empty()) CAKE_TRY(config.set("endpoint", globals.endpoint, "--endpoint"));
  if (globals.offline) CAKE_TRY(config.set("offline", "yes", "--offline"));
  return config;
}

int run_cake(std::vector<std::string> args, std::ostream& out, std::ostream& err) {
  CLI::App app("Mounts Hugging Face models as files that are fetched when they are read.", "cake");
  Globals globals;
  Run run;
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();  // global flags may stand behind the verb
  app.get_formatter()->column_width(34);
  add_globals(app, globals);
  add_verbs(app, run);
  if (const std::optional<std::string> flag = find_flag_without_value(args)) {
    err << "cake: " << printable(*flag) << " has an empty value\n";
    return kExitUsage;
  }
  try {
    args = as_flags(app, std::move(args));
    std::reverse(args.begin(), args.end());
    app.parse(std::move(args));
  } catch (const CLI::Success& success) {  // --help, --version
    app.exit(success, out, err);
    return end_output(out, err, kExitOk);
  } catch (const CLI::ParseError& error) {
    err << "cake: " << printable(explain(app, error, app.remaining(true))) << '\n';
    return kExitUsage;
  }

  const bool is_terminal = isatty(STDOUT_FILENO) != 0;
  Context context{globals, Config(), choose_format(globals, is_terminal), out, err, false};
  context.globals.quiet = context.format == Format::quiet;
  context.shows_progress = !globals.no_progress && context.format != Format::quiet &&
                           !is_switched_on("HF_HUB_DISABLE_PROGRESS_BARS");
  context.config = CAKE_TRY_RUN(context, load_config(globals));
  CAKE_TRY_RUN(context,
               open_log("stderr", globals.verbose ? LogLevel::debug : LogLevel::warn, "cake"));
  return end_output(out, err, run(context));
}

Result<ByteSelection> parse_byte_selection(std::string_view text) {
  const Error error{Errc::invalid, cat("--range ", text.substr(0, 100), ": give FIRST-LAST")};
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos || text.size() == 1) return error;
  const auto number = [](std::string_view digits) -> std::optional<uint64_t> {
    uint64_t value = 0;
    const auto [end, failure] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (failure != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return value;
  };
  ByteSelection selection;
  const std::string_view first = text.substr(0, dash), last = text.substr(dash + 1);
  if (!first.empty()) {
    const std::optional<uint64_t> value = number(first);
    if (!value) return error;
    selection.first = *value;
  } else {
    selection.is_suffix = true;
  }
  if (!last.empty()) {
    const std::optional<uint64_t> value = number(last);
    if (!value) return error;
    selection.last = *value;
  }
  if (!selection.is_suffix && selection.last < selection.first) return error;
  return selection;
}

Result<ByteRange> select_bytes(const ByteSelection& selection, uint64_t bytes) {
  if (selection.is_suffix) {
    const uint64_t length = std::min(selection.last, bytes);
    return ByteRange{bytes - length, length};
  }
  if (selection.first >= bytes)
    return Error{Errc::invalid,
                 cat("the range starts behind the end: the file has ", bytes, " bytes")};
  const uint64_t last = std::min(selection.last, bytes - 1);
  return ByteRange{selection.first, last - selection.first + 1};
}

}  // namespace cake
