// cake mount, umount, upgrade, ps
#include <CLI/CLI.hpp>
#include <filesystem>
#include <ostream>

#include "fetch/reference.h"
#include "fs/mount_record.h"
#include "store/base/bytes.h"
#include "tools/mounts.h"
#include "tools/table.h"

namespace cake {
namespace {

// A busy file system is refused at once; this bounds a keeper that tidies up.
constexpr Millis kUnmountTimeout{60'000};
constexpr Millis kUpgradeTimeout{60'000};

int run_mount_verb(Context& context, MountRequest request) {
  request.is_dry_run = context.globals.dry_run;
  const std::string directory = request.directory;
  const int status = run_mount(request, context.config, "cake", context.err);
  if (status == 0 && !request.is_foreground) context.out << directory << '\n';
  // mount(8)'s words for it, in ours.
  return status == 0 ? kExitOk : status == kMountUsage ? kExitUsage : kExitFailed;
}

int run_umount(Context& context, const std::vector<std::string>& directories, bool is_lazy) {
  int status = kExitOk;
  for (const std::string& directory : directories) {
    if (context.globals.dry_run) {
      context.out << directory << '\n';
      continue;
    }
    const Status ended = end_mount(directory, is_lazy, Deadline::after(kUnmountTimeout));
    if (!ended) status = fail(context, ended.error());
  }
  return status;
}

int run_upgrade(Context& context, const std::vector<std::string>& directories) {
  std::vector<MountRecord> records;
  for (const std::string& directory : directories)
    records.push_back(CAKE_TRY_RUN(context, find_mount_record(directory)));
  if (directories.empty()) records = CAKE_TRY_RUN(context, list_mount_records());
  int status = kExitOk;
  for (const MountRecord& record : records) {
    if (!context.globals.dry_run) {
      const Status moved = upgrade_mount(record, Deadline::after(kUpgradeTimeout));
      if (!moved) {
        status = fail(context, moved.error());
        continue;
      }
    }
    context.out << record.mount_point << '\n';
  }
  return status;
}

// When the record was made: the mount's age.
std::optional<int64_t> age_seconds(const MountRecord& record) {
  std::error_code failure;
  const auto made = std::filesystem::last_write_time(
      cat("/proc/", static_cast<int64_t>(record.keeper_pid)), failure);
  if (failure) return std::nullopt;
  const auto age = std::filesystem::file_time_type::clock::now() - made;
  return std::chrono::duration_cast<std::chrono::seconds>(age).count();
}

std::string age_text(int64_t seconds) {
  if (seconds < 60) return cat(seconds, "s");
  if (seconds < 3600) return cat(seconds / 60, "m");
  if (seconds < 86'400) return cat(seconds / 3600, "h", seconds / 60 % 60, "m");
  return cat(seconds / 86'400, "d", seconds / 3600 % 24, "h");
}

int run_ps(Context& context) {
  Table table({{"MOUNT"},
               {"SOURCE"},
               {"REVISION"},
               {"STORE"},
               {"KEEPER", true},
               {"WORKER", true},
               {"RESTARTS", true},
               {"AGE", true}});
  for (const MountRecord& record : CAKE_TRY_RUN(context, list_mount_records())) {
    const Result<Reference> reference = parse_reference(record.source);
    const std::optional<int64_t> age = age_seconds(record);
    Cell age_cell;
    if (age && context.format == Format::human)
      age_cell = age_text(*age);
    else if (age)
      age_cell = static_cast<uint64_t>(std::max<int64_t>(0, *age));
    table.add({record.mount_point, record.source,
               reference && !reference->revision.empty() ? Cell(reference->revision) : Cell(),
               record.store, static_cast<uint64_t>(record.keeper_pid),
               static_cast<uint64_t>(record.worker_pid),
               static_cast<uint64_t>(record.generation > 0 ? record.generation - 1 : 0), age_cell});
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return kExitOk;
}

void add_mount_verb(CLI::App& app, Run& run) {
  struct Arguments {
    MountRequest request;
    std::vector<std::string> options;
  };
  CLI::App* verb = app.add_subcommand("mount", "Mount the hub, or one repo, on a directory");
  const auto arguments = std::make_shared<Arguments>();
  verb->add_option("SRC", arguments->request.source, "hf: for the hub, or hf:ORG/NAME[@REV]")
      ->required();
  verb->add_option("DIR", arguments->request.directory, "An empty directory")->required();
  verb->add_option("-o", arguments->options, "Options, see mount.cakefs(8); may be repeated")
      ->type_name("KEY=VALUE,...")
      ->expected(1)
      ->take_all();
  verb->add_flag("-f,--foreground", arguments->request.is_foreground, "Stay until it is unmounted");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) {
      MountRequest request = arguments->request;
      for (const std::string& list : arguments->options)
        for (std::string& option : Config::split_options(list))
          request.options.push_back(std::move(option));
      return run_mount_verb(context, std::move(request));
    };
  });
}

}  // namespace

void add_mount(CLI::App& app, Run& run) {
  add_mount_verb(app, run);

  CLI::App* umount = app.add_subcommand("umount", "Unmount");
  const auto directories = std::make_shared<std::vector<std::string>>();
  const auto is_lazy = std::make_shared<bool>(false);
  umount->add_option("DIR", *directories, "Mount points")->required();
  umount->add_flag("--lazy", *is_lazy, "Out of sight now, ended when the last file is closed");
  umount->callback([directories, is_lazy, &run] {
    run = [directories, is_lazy](Context& context) {
      return run_umount(context, *directories, *is_lazy);
    };
  });

  CLI::App* upgrade =
      app.add_subcommand("upgrade", "Move mounts to the installed program, without interruption");
  const auto moved = std::make_shared<std::vector<std::string>>();
  upgrade->add_option("DIR", *moved, "Mount points; default all of this user's");
  upgrade->callback(
      [moved, &run] { run = [moved](Context& context) { return run_upgrade(context, *moved); }; });

  CLI::App* ps = app.add_subcommand("ps", "List this user's mounts");
  ps->callback([&run] { run = run_ps; });
}

}  // namespace cake
