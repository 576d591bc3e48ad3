// cake cat
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>

#include "store/base/bytes.h"
#include "tools/args.h"
#include "tools/session.h"

namespace cake {
namespace {

struct CatArguments {
  std::vector<std::string> references;
  std::string range;
  bool remote = false;
};

// Few enough to start printing soon, enough to keep several connections busy.
constexpr uint64_t kWindowBytes = 16 * kMiB;

Status print_file(Context& context, Session& session, const std::string& text,
                  const CatArguments& arguments) {
  const Reference reference = CAKE_TRY(parse_reference(text));
  if (reference.path.empty())
    return Error{Errc::invalid, cat(reference.text(), " names a repo; give ORG/NAME/FILE")};
  const auto snapshot = CAKE_TRY(session.find_snapshot(reference, arguments.remote));
  const std::optional<uint32_t> entry = snapshot->find_entry(reference.path);
  if (!entry) {
    const bool is_folder = snapshot->find_path(reference.path).has_value();
    return Error{is_folder ? Errc::invalid : Errc::not_found,
                 cat(snapshot->repo().id, "@", snapshot->commit(),
                     is_folder ? ": this is a folder: " : " has no file ", reference.path)};
  }
  const auto file = CAKE_TRY(session.client().open(snapshot->content_id(*entry)));
  ByteRange range{0, file->bytes()};
  if (!arguments.range.empty()) {
    const ByteSelection selection = CAKE_TRY(parse_byte_selection(arguments.range));
    range = CAKE_TRY(select_bytes(selection, file->bytes()));
  }
  while (range.length > 0 && context.out) {
    const uint64_t length = std::min(range.length, kWindowBytes);
    const FileReader::Slices slices =
        CAKE_TRY(wait_for<FileReader::Slices>([&](Done<FileReader::Slices> done) {
          file->read(range.offset, length, ReadOptions{}, std::move(done));
        }));
    for (const ChunkSlice& slice : slices) {
      const std::string_view bytes = as_text(slice.bytes());
      context.out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    range.offset += length;
    range.length -= length;
  }
  return {};
}

int run_cat(Context& context, const CatArguments& arguments) {
  const auto session = CAKE_TRY_RUN(
      context,
      Session::open(context.config, arguments.remote ? Session::For::look : Session::For::command));
  for (const std::string& reference : arguments.references)
    CAKE_TRY_RUN(context, print_file(context, *session, reference, arguments));
  return kExitOk;
}

}  // namespace

void add_cat(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("cat", "Write files to standard output");
  const auto arguments = std::make_shared<CatArguments>();
  verb->add_option("REF", arguments->references, "ORG/NAME[@REV]/PATH")->required();
  verb->add_option("--range", arguments->range,
                   "Bytes FIRST-LAST (both included), FIRST- or -COUNT")
      ->type_name("A-B");
  verb->add_flag("--remote", arguments->remote, "Ask the hub for the revision");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_cat(context, *arguments); };
  });
}

}  // namespace cake
