// cake config, cake env
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/base/version.h"
#include "tools/table.h"

namespace cake {
namespace {

// What is used when the setting is left alone.
std::string value_in_use(const Config& config, std::string_view key) {
  if (key == "store") return config.store_directory();
  if (key == "allow_other") return config.boolean("allow_other") ? "yes" : "no";
  return config.text(key);
}

int run_config(Context& context, const std::string& key) {
  if (!key.empty()) {
    if (find_setting(key) == nullptr) return fail(context, unknown_setting(key));
    if (context.format != Format::json) {
      context.out << value_in_use(context.config, key) << '\n';
      return kExitOk;
    }
  }
  Table table({{"KEY"}, {"VALUE"}, {"ORIGIN"}});
  for (const Setting& setting : all_settings()) {
    if (!key.empty() && key != setting.key) continue;
    table.add({std::string(setting.key), value_in_use(context.config, setting.key),
               context.config.get(setting.key).origin});
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return kExitOk;
}

// Without user:password: what is printed here is pasted into bug reports.
std::string without_secrets(const std::string& address) {
  const size_t scheme = address.find("://");
  const size_t start = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t at = address.substr(0, address.find('/', start)).rfind('@');
  if (at == std::string::npos || at < start) return address;
  return address.substr(0, start) + "***" + address.substr(at);
}

int run_env(Context& context) {
  Facts facts;
  facts.add("cake", std::string(version()));
  utsname system{};
  uname(&system);
  facts.add("kernel", cat(system.sysname, " ", system.release, " ", system.machine));
  facts.add("user", uint64_t{geteuid()});
  facts.add("processors", static_cast<uint64_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))));
  facts.add("store", context.config.store_directory());
  facts.add("endpoint", context.config.text("endpoint"));
  facts.add("offline", context.config.text("offline"));
  const std::string token_file = context.config.text("token_file");
  facts.add("token_file", token_file.empty() ? Cell() : Cell(token_file));
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
    facts.add(name, std::string(std::getenv(name) == nullptr ? "not set" : "set"));
  for (const char* name :
       {"HF_TOKEN_PATH", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "https_proxy",
        "HTTPS_PROXY", "all_proxy", "no_proxy", "SSL_CERT_FILE"}) {
    const char* value = std::getenv(name);
    facts.add(name, value == nullptr ? Cell() : Cell(without_secrets(value)));
  }
  facts.print(context.format, context.out);
  return kExitOk;
}

}  // namespace

void add_config(CLI::App& app, Run& run) {
  CLI::App* config = app.add_subcommand("config", "Show each setting and where it came from");
  const auto key = std::make_shared<std::string>();
  config->add_option("KEY", *key, "Only this setting's value");
  config->callback(
      [key, &run] { run = [key](Context& context) { return run_config(context, *key); }; });

  CLI::App* env = app.add_subcommand("env", "Describe this machine and environment, for reports");
  env->callback([&run] { run = run_env; });
}

}  // namespace cake
