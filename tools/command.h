// What every verb of `cake` shares: the global flags as values, where output goes, exit statuses.
#pragma once

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

#include "store/base/config.h"
#include "store/base/result.h"

namespace CLI {
class App;
}

namespace cake {

// Exit statuses of `cake` (man/cake.1); mount.cakefs has those of mount(8).
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;  // failed, or a mismatch was found
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;
int exit_status(Errc code);
// "No such file" and "not allowed" have statuses that speak of the hub.  Said of a path of this
// machine that a command only works with, they are Errc::io.
Error local_error(Error error);
template <typename T>
Result<T> of_this_machine(Result<T> result) {
  if (!result) return local_error(std::move(result).error());
  return result;
}

// How data is written to stdout.
enum class Format {
  human,  // aligned, rounded: on a terminal
  tabs,   // tab-separated, full values: anywhere else
  json,   // one object or array, sizes in bytes, times RFC 3339
  quiet,  // only what a script feeds to the next command
};

// The global flags, as given.
struct Globals {
  std::string format = "auto";
  bool json = false;
  bool quiet = false;
  bool no_truncate = false;
  bool no_progress = false;
  bool yes = false;
  bool dry_run = false;
  bool verbose = false;
  bool offline = false;
  std::string store, token_file, endpoint;  // empty when not given
};

Format choose_format(const Globals& globals, bool stdout_is_terminal);

// Passed to a verb once everything is parsed.
struct Context {
  Globals globals;
  Config config;
  Format format = Format::human;
  std::ostream& out;  // data
  std::ostream& err;  // messages
  bool shows_progress = false;
};

// Writes "cake: MESSAGE" and answers the status: `return fail(context, error);`
int fail(Context& context, const Error& error);
// As seen from the working directory, which may be gone (Errc::io).
Result<std::string> absolute_path(const std::string& path);
// A message for people, in one line; silent with -q.
void say(Context& context, std::string_view message);
// Asks on the terminal; -y answers for the user.  False when stdin is no terminal.
bool is_confirmed(Context& context, const std::string& question);

// A verb: what it takes, and what runs when it was chosen.
using Run = std::function<int(Context&)>;

// Each cmd_*.cc adds its verbs to `app`; parsing fills `run`.
void add_mount(CLI::App& app, Run& run);  // mount, umount, upgrade
void add_ps(CLI::App& app, Run& run);
void add_pull(CLI::App& app, Run& run);
void add_ls(CLI::App& app, Run& run);
void add_tree(CLI::App& app, Run& run);  // tree, stat
void add_cat(CLI::App& app, Run& run);
void add_du(CLI::App& app, Run& run);
void add_rm(CLI::App& app, Run& run);   // rm, prune
void add_pin(CLI::App& app, Run& run);  // pin, unpin
void add_verify(CLI::App& app, Run& run);
void add_fsck(CLI::App& app, Run& run);
void add_inspect(CLI::App& app, Run& run);  // inspect, hash
void add_locate(CLI::App& app, Run& run);
void add_diff(CLI::App& app, Run& run);
void add_recompress(CLI::App& app, Run& run);
void add_import(CLI::App& app, Run& run);
void add_export(CLI::App& app, Run& run);
void add_serve(CLI::App& app, Run& run);
void add_config(CLI::App& app, Run& run);  // config, env
void add_doctor(CLI::App& app, Run& run);
void add_completion(CLI::App& app, Run& run);

}  // namespace cake

// As CAKE_TRY, in a verb: the error is said and becomes the exit status.
#define CAKE_TRY_RUN(context, expression)                                        \
  __extension__({                                                                \
    auto cake_try_result = (expression);                                         \
    if (!cake_try_result) return ::cake::fail(context, cake_try_result.error()); \
    std::move(cake_try_result).value();                                          \
  })
