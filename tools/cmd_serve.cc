// cake serve: a folder of repos as a hub
#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>

#include "fetch/serve.h"
#include "tools/command.h"

namespace cake {
namespace {

int run_serve_verb(Context& context, const ServeOptions& options) {
  const Status served = run_serve(options, [&](const std::string& url) {
    // First line, at once: scripts wait for it to learn the port.
    context.out << url << std::endl;
  });
  return served ? kExitOk : fail(context, served.error());
}

}  // namespace

void add_serve(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("serve", "Serve a folder of repos as a hub");
  const auto options = std::make_shared<ServeOptions>();
  verb->add_option("DIR", options->directory, "Folder with ORG/NAME[@REV] folders in it")->required();
  verb->add_option("--listen", options->listen, "Address and port; port 0 is any free one")
      ->type_name("ADDR");
  verb->add_option("--max-conns", options->max_conns, "Connections at once");
  verb->callback([options, &run] {
    run = [options](Context& context) { return run_serve_verb(context, *options); };
  });
}

}  // namespace cake
