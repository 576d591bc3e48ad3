// cake serve
#include <CLI/CLI.hpp>
#include <filesystem>
#include <ostream>

#include "fetch/serve.h"
#include "store/base/bytes.h"
#include "tools/command.h"

namespace cake {
namespace {

int run_serve_verb(Context& context, const ServeOptions& options) {
  std::error_code failure;
  if (!std::filesystem::is_directory(options.directory, failure))
    return fail(context, {Errc::not_found, cat(options.directory, " is not a directory")});
  if (context.globals.dry_run) return kExitOk;
  CAKE_TRY_RUN(context, run_serve(options, [&](const std::string& url) {
                 // Whoever started us waits for this line.
                 context.out << url << std::endl;
               }));
  return kExitOk;
}

}  // namespace

void add_serve(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("serve", "Serve a folder of repos as a hub");
  const auto options = std::make_shared<ServeOptions>();
  verb->add_option("DIR", options->directory, "Folder with ORG/NAME/... below it")->required();
  verb->add_option("--listen", options->listen, "HOST:PORT (default 127.0.0.1:8080); port 0: any")
      ->type_name("ADDR");
  verb->callback([options, &run] {
    run = [options](Context& context) { return run_serve_verb(context, *options); };
  });
}

}  // namespace cake
