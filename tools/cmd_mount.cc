// cake mount, umount, upgrade
#include <CLI/CLI.hpp>
#include <ostream>

#include "fs/mount_record.h"
#include "store/base/bytes.h"
#include "tools/command.h"
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
  // As mount.cakefs, but for the two that mean something else here: usage is 2, a system error 1.
  if (status == kMountUsage) return kExitUsage;
  return status == kMountSystem ? kExitFailed : status;
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
  records.reserve(directories.size());
  for (const std::string& directory : directories)
    records.push_back(CAKE_TRY_RUN(context, find_mount_record(directory)));
  if (directories.empty()) records = CAKE_TRY_RUN(context, list_mount_records());
  int status = kExitOk;
  Table moved_mounts({{"MOUNT"}});
  for (const MountRecord& record : records) {
    if (!context.globals.dry_run) {
      const Status moved = upgrade_mount(record, Deadline::after(kUpgradeTimeout));
      if (!moved) {
        status = fail(context, moved.error());
        continue;
      }
    }
    if (context.format == Format::json)
      moved_mounts.add({record.mount_point});
    else
      context.out << record.mount_point << '\n';  // as each is moved: that takes a while
  }
  if (context.format == Format::json) moved_mounts.print(context.format, context.out);
  return status;
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
  verb->add_option("DIR", arguments->request.directory, "A directory")->required();
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
}

}  // namespace cake
