#include "tools/worker.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <span>

#include "fetch/proof.h"
#include "fs/hot_files.h"
#include "fs/invalidate.h"
#include "fs/keeper.h"
#include "fs/model_fs.h"
#include "fs/mount_view.h"
#include "fs/node_id.h"
#include "fs/worker.h"
#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/base/log.h"
#include "store/base/log_listener.h"
#include "store/materialize.h"
#include "tools/session.h"
#include "tools/traffic.h"

namespace cake {
namespace {

double seconds_or(const Config& config, std::string_view key, double otherwise) {
  const std::optional<uint64_t> seconds = config.seconds(key);
  return seconds ? static_cast<double>(*seconds) : otherwise;
}

ModelFsOptions file_system_options(const Config& config) {
  ModelFsOptions options;
  options.uid = static_cast<unsigned>(config.count("uid").value_or(getuid()));
  options.gid = static_cast<unsigned>(config.count("gid").value_or(getgid()));
  options.file_mode = config.mode("fmode");
  options.directory_mode = config.mode("dmode");
  options.moving_ttl_s = seconds_or(config, "refresh", 60);
  options.negative_ttl_s = seconds_or(config, "neg_ttl", 60);
  options.attr_ttl_s = seconds_or(config, "attr_ttl", -1);
  options.timeo = Millis(1000 * std::max<uint64_t>(1, *config.seconds("timeo")));
  return options;
}

HotOptions hot_options(const Config& config) {
  HotOptions options;
  const Result<DiskSpace> disk = disk_space(config.store_directory());
  if (disk) options.min_free_bytes = config.percent_size("min_free").bytes_of(disk->total_bytes);
  return options;
}

// A mount of a repo, or of a folder in it, that does not exist fails now; a known one needs no
// network.
Result<MountViewOptions> view_options(Session& session, const Config& config,
                                      const std::string& source) {
  MountViewOptions options;
  options.is_hf_layout = config.text("layout") == "hf";
  options.revision = config.text("rev");
  options.shown = shown_choice(config);
  if (is_whole_hub(source)) return options;
  const Reference reference = CAKE_TRY(parse_reference(source));
  const auto snapshot = CAKE_TRY(session.find_snapshot(reference, false));
  CAKE_TRY(ShownFiles(options.shown, ShownFiles::Paths::below_subdir).of(snapshot));
  options.single_repo = reference.repo;
  return options;
}

int serve(const Config& config, const std::string& source) {
  const auto failed = [](const Error& error) {
    // The keeper passes stderr on to who mounts; later workers have the log only.
    std::cerr << "cakefs: " << error.message << std::endl;
    log_error(error.message);
    return error.code == Errc::io ? kMountSystem : kMountFailure;
  };
  const std::optional<LogLevel> level = parse_log_level(config.text("loglevel"));
  if (const Status opened = open_log(config.text("log"), level.value_or(LogLevel::info), "cakefs");
      !opened)
    return failed(opened.error());
  const Result<std::unique_ptr<Channel>> channel = Channel::adopt();
  if (!channel) return failed(channel.error());
  const Result<std::unique_ptr<Session>> session = Session::open(config, Session::For::mount);
  if (!session) return failed(session.error());
  const Result<MountViewOptions> shown = view_options(**session, config, source);
  if (!shown) return failed(shown.error());
  if (const std::string pid_file = config.text("pid_file"); !pid_file.empty()) {
    const std::string pid = cat((*channel)->state().keeper_pid.load(), "\n");
    if (const Status written = write_file_atomically(pid_file, as_bytes(pid)); !written)
      return failed(written.error());
  }

  const Result<std::unique_ptr<Materializer>> materializer =
      Materializer::open((*session)->store());
  if (!materializer) return failed(materializer.error());
  std::optional<HotFiles> hot_files;
  if (config.text("hot") == "auto") hot_files.emplace(**materializer, hot_options(config));

  // Shared with the log, which outlives everything here.
  const auto events = std::make_shared<EventLog>();
  set_log_listener([events](LogLevel of_line, std::string_view text) {
    events->add(log_level_name(of_line), text);
  });
  MountView view((*session)->client(), (*session)->metrics(), *events, *shown);
  ModelFsOptions served = file_system_options(config);
  if (config.text("passthrough") != "off") served.materializer = materializer->get();
  if (hot_files) served.hot_files = &*hot_files;
  ModelFs file_system((*session)->client(), view, served);
  // After a lie of the disk or the hub: the kernel's copy goes, then the file is fetched again.
  const auto drop = [&](RowId content, const std::function<bool()>& should_stop) {
    const Status dropped = invalidate_node(**channel, file_node(content), should_stop);
    if (!dropped && dropped.error().code != Errc::cancelled) log_warn(dropped.error().message);
  };
  const FileProof proof((*session)->client(), (*session)->metrics(), {}, drop);
  Counter& received = (*session)->metrics().counter("fetch.bytes_received");
  KeeperState& keeper = (*channel)->state();
  const TrafficReport traffic(keeper.keeper_pid.load(), keeper.generation.load() > 1, [&] {
    return TrafficReport::Counts{received.value(), (*channel)->opens().size()};
  });
  WorkerOptions options;
  options.max_background = static_cast<unsigned>(*config.count("max_background"));
  const int status = run_worker(file_system, **channel, options);
  // What comes of a request or a timer still leads to the view and the file system: they go later.
  (*session)->stop();
  return status;
}

}  // namespace

Result<Config> worker_config(const std::vector<std::string>& args) {
  Config config;
  for (const std::string& option : std::span(args).subspan(1))
    CAKE_TRY(config.set_option(option, "mount"));
  return config;
}

int run_mount_worker(const std::vector<std::string>& args) {
  if (args.empty()) {
    std::cerr << "cakefs: a worker is started by a mount only\n";
    return kMountUsage;
  }
  const Result<Config> config = worker_config(args);
  if (!config) {
    std::cerr << "cakefs: " << config.error().message << '\n';
    return kMountUsage;
  }
  return serve(*config, args.front());
}

}  // namespace cake
