// cake recompress
#include <CLI/CLI.hpp>
#include <atomic>
#include <ostream>
#include <thread>
#include <unordered_set>

#include "store/base/bytes.h"
#include "store/base/thread_pool.h"
#include "store/coverage.h"
#include "store/pack_record.h"
#include "store/space.h"
#include "tools/interrupts.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/transfer_run.h"

namespace cake {
namespace {

struct RecompressArguments {
  std::vector<std::string> references;
  std::string codec;
};

struct RecompressSums {
  uint64_t files = 0, chunks = 0, recoded = 0;
  uint64_t before_bytes = 0, after_bytes = 0;  // of the store, on the disk
};

// Recodes chunks on all processors, a batch after the other: what has been written is published and
// the old entries punched before more is written, so the store grows by a batch at most.
class Recompression {
 public:
  Recompression(Context& context, Session& session, Interrupts& interrupts, unsigned threads)
      : store_(session.store()),
        interrupts_(interrupts),
        threads_(threads),
        progress_(context.err, progress_style(context), stderr_width()) {
    state_.total.label = "recompress";
  }

  // Each chunk of it that no file before had.
  Status add(const ContentRow& content) {
    const std::optional<Recipe> recipe = CAKE_TRY(load_recipe(store_.index(), content));
    if (!recipe) return {};
    state_.total.total_bytes += content.bytes;
    const std::string name = content_pack_name(content.source, content.key);
    sums_.files++;
    return each_extent(store_.index(), content, *recipe, [&](const KnownExtent& known) -> Status {
      if (interrupts_.has_come()) return Error{Errc::cancelled, "interrupted; the rest stays"};
      state_.total.done_bytes += known.extent.length;
      if (!known.location || !seen_.insert(known.digest).second) return {};
      sums_.chunks++;
      batch_.push_back({known.digest, *known.location, known.extent.dtype, name, known.ordinal});
      return batch_.size() < kBatch ? Status() : run_batch();
    });
  }

  Result<RecompressSums> finish() {
    CAKE_TRY(run_batch());
    progress_.finish(state_);
    return sums_;
  }

 private:
  static constexpr size_t kBatch = 64;

  Status run_batch() {
    std::atomic<size_t> next{0}, recoded{0};
    std::vector<Status> ends(threads_);
    {
      ThreadPool pool("recompress", threads_);
      for (Status& end : ends)
        pool.post(ThreadPool::Priority::demand, [&] {
          for (size_t i = next++; i < batch_.size() && end; i = next++) {
            const Result<bool> done = store_.chunks().recode(batch_[i]);
            // Evicted or damaged since it was listed: nothing to recode, and fsck's to say.
            if (!done && done.error().code != Errc::corrupt && done.error().code != Errc::not_found)
              end = done.error();
            else if (done && *done)
              recoded++;
          }
        });
    }
    batch_.clear();
    sums_.recoded += recoded;
    progress_.update(state_);
    for (const Status& end : ends) CAKE_TRY(end);
    return store_.chunks().flush();
  }

  Store& store_;
  Interrupts& interrupts_;
  const unsigned threads_;
  Progress progress_;
  ProgressState state_;
  std::unordered_set<Digest, DigestHash> seen_;
  std::vector<RecodeRequest> batch_;
  RecompressSums sums_;
};

void print(Context& context, const RecompressSums& sums, const std::string& codec) {
  if (context.format == Format::json) {
    Facts facts;
    facts.add("codec", codec);
    facts.add("files", sums.files);
    facts.add("chunks", sums.chunks);
    facts.add("recoded", sums.recoded);
    facts.add("before", Bytes{sums.before_bytes});
    facts.add("after", Bytes{sums.after_bytes});
    facts.print(Format::json, context.out);
    return;
  }
  if (context.format == Format::quiet) return;
  context.out << "Recoded " << sums.recoded << " of " << sums.chunks << " chunk(s) of "
              << sums.files << " file(s) with codec=" << codec << ": the store was "
              << format_size(sums.before_bytes) << ", is " << format_size(sums.after_bytes) << '\n';
}

Status print_plan(Context& context, Index& index, const std::vector<StoredFile>& files) {
  if (context.format != Format::json) {
    const std::string_view front = context.format == Format::quiet ? "" : "would recompress ";
    for (const StoredFile& file : files) context.out << front << printable(file.name) << '\n';
    return {};
  }
  Table table({{"FILE"}, {"SIZE", true}});
  for (const StoredFile& file : files)
    if (const auto content = CAKE_TRY(index.find_content(file.content)))
      table.add({file.name, Bytes{content->bytes}});
  table.print(context.format, context.out);
  return {};
}

int run_recompress(Context& context, const RecompressArguments& arguments) {
  if (!arguments.codec.empty())
    CAKE_TRY_RUN(context, context.config.set("codec", arguments.codec, "--codec"));
  const std::string codec = context.config.text("codec");
  const Space space(context.config.store_directory(), {});
  RecompressSums sums;
  {
    Interrupts interrupts;
    const auto session = CAKE_TRY_RUN(context, Session::open(context.config));
    const std::vector<StoredFile> files =
        CAKE_TRY_RUN(context, list_stored_files(*session, arguments.references));
    Index& index = session->store().index();
    if (context.globals.dry_run) {
      CAKE_TRY_RUN(context, print_plan(context, index, files));
      return kExitOk;
    }
    const uint64_t before_bytes = CAKE_TRY_RUN(context, space.used_bytes());
    Recompression work(context, *session, interrupts,
                       std::max(1U, std::thread::hardware_concurrency()));
    for (const StoredFile& file : files)
      if (const auto content = CAKE_TRY_RUN(context, index.find_content(file.content)))
        CAKE_TRY_RUN(context, work.add(*content));
    sums = CAKE_TRY_RUN(context, work.finish());
    sums.before_bytes = before_bytes;
  }
  // A writer that is done has given back the room that it had taken ahead.
  sums.after_bytes = CAKE_TRY_RUN(context, space.used_bytes());
  print(context, sums, codec);
  return kExitOk;
}

}  // namespace

void add_recompress(CLI::App& app, Run& run) {
  CLI::App* verb =
      app.add_subcommand("recompress", "Encode again what other settings or a full queue stored");
  const auto arguments = std::make_shared<RecompressArguments>();
  verb->add_option("REF", arguments->references, "ORG/NAME[@REV][/PATH]; all without one");
  verb->add_option("--codec", arguments->codec, "auto, raw, zstd or rans (default: the setting)");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_recompress(context, *arguments); };
  });
}

}  // namespace cake
