// cake serve
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <ostream>

#include "fetch/reference.h"
#include "fetch/serve.h"
#include "store/base/bytes.h"
#include "tools/command.h"
#include "tools/session.h"

namespace cake {
namespace {

// The official clients give up after ten: they are to be told that the hub does not answer.
constexpr uint64_t kMaxNameSeconds = 8;

struct ServeArguments {
  ServeOptions options;
  std::string source;
};

int run_serve_verb(Context& context, const ServeArguments& arguments) {
  ServeOptions options = arguments.options;
  std::unique_ptr<Session> session;
  if (is_whole_hub(arguments.source)) {
    // A client of a mirror is told what is wrong, and asks again; it does not wait for ever.
    CAKE_TRY_RUN(context, context.config.set("hard", "no", "serve"));
    options.name_timeout =
        Millis(1000 * std::clamp<uint64_t>(context.config.seconds("timeo").value_or(60), 1,
                                           kMaxNameSeconds));
    options.open_client = [&]() -> Result<Client*> {
      session = CAKE_TRY(Session::open(context.config));
      return &session->client();
    };
    options.stop_client = [&] { session->stop(); };
  } else {
    std::error_code failure;
    if (!std::filesystem::is_directory(arguments.source, failure))
      return fail(context, {Errc::not_found, arguments.source + " is not a directory, nor hf:"});
    options.directory = arguments.source;
  }
  if (context.globals.dry_run) return kExitOk;
  CAKE_TRY_RUN(context, of_this_machine(run_serve(options, [&](const std::string& url) {
                 // Whoever started us waits for this line.
                 context.out << url << std::endl;
               })));
  return kExitOk;
}

}  // namespace

void add_serve(CLI::App& app, Run& run) {
  CLI::App* verb =
      app.add_subcommand("serve", "Serve a folder of repos, or the store and its hub, as a hub");
  const auto arguments = std::make_shared<ServeArguments>();
  ServeOptions& options = arguments->options;
  verb->add_option("SRC", arguments->source,
                   "Folder with ORG/NAME/... below it, or hf: for what the store holds and the hub "
                   "behind it has")
      ->required();
  verb->add_option("--listen", options.listen, "HOST:PORT (default 127.0.0.1:8080); port 0: any")
      ->type_name("ADDR");
  verb->add_option("--tls-cert", options.tls_certificate_file, "Certificate chain, PEM: https")
      ->type_name("FILE");
  verb->add_option("--tls-key", options.tls_key_file, "Its key, PEM")->type_name("FILE");
  verb->add_option("--require-token", options.token_file, "Serve only who sends the token in it")
      ->type_name("FILE");
  verb->add_option("--max-conns", options.max_conns, "Connections at once (default 1024)")
      ->check(CLI::Range(1U, 1'000'000U))
      ->type_name("N");
  verb->add_option("--max-conns-per-ip", options.max_conns_per_ip,
                   "Of one address (default 0: no limit)")
      ->type_name("N");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_serve_verb(context, *arguments); };
  });
}

}  // namespace cake
