#include "tools/mounts.h"

#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <ostream>

#include "fetch/reference.h"
#include "fs/mount_record.h"
#include "store/base/bytes.h"
#include "store/base/version.h"
#include "tools/args.h"
#include "tools/command.h"
#include "tools/table.h"
#include "tools/worker.h"

namespace cake {
namespace {

// What the source says in other words than the options do.
Status apply_source(const std::string& source, Config& config) {
  if (is_whole_hub(source)) return {};
  const Reference reference = CAKE_TRY(parse_reference(source));
  const auto set = [&](std::string_view key, const std::string& value) -> Status {
    if (value.empty()) return {};
    if (config.get(key).origin == "-o" && config.text(key) != value)
      return Error{Errc::invalid, cat("the source says ", key, " ", value, ", the options say ",
                                      config.text(key))};
    return config.set(key, value, "source");
  };
  CAKE_TRY(set("rev", reference.revision));
  return set("subdir", reference.path);
}

// A folder as repos have them: no slashes around, no "..".
Status check_subdir(Config& config) {
  std::string subdir = config.text("subdir");
  if (subdir.empty()) return {};
  while (subdir.ends_with('/')) subdir.pop_back();
  if (!is_valid_repo_path(subdir))
    return Error{Errc::invalid, cat("subdir=", config.text("subdir"), ": not a path in a repo")};
  return config.set("subdir", subdir, config.get("subdir").origin);
}

// What a mount needs to serve reads must not lie below it: it would wait for itself for ever.
Status check_apart(const Config& config, const std::string& mount_point) {
  for (const char* key : {"store", "log", "pid_file", "token_file", "cafile"}) {
    const std::string path =
        std::string_view(key) == "store" ? config.store_directory() : config.text(key);
    if (!path.starts_with('/')) continue;
    std::error_code failure;
    const std::string real = std::filesystem::weakly_canonical(path, failure).string();
    if (!failure && (real == mount_point ||
                     real.starts_with(mount_point == "/" ? mount_point : mount_point + "/")))
      return Error{Errc::invalid, cat(key, "=", path, " lies below the mount point ", mount_point)};
  }
  return {};
}

// As prepare_mount_point has it, but for a dead mount there, which stays.
Result<std::string> look_at_mount_point(const std::string& path) {
  std::error_code failure;
  const std::filesystem::file_status status = std::filesystem::status(path, failure);
  if (failure == std::errc::not_connected) return absolute_path(path);
  if (failure) return errno_error(failure.value(), path);
  if (!std::filesystem::is_directory(status))
    return Error{Errc::invalid, cat(path, ": not a directory")};
  const std::string canonical = std::filesystem::canonical(path, failure).string();
  if (failure) return errno_error(failure.value(), path);
  return canonical;
}

int remount(const MountRequest& request, const KeeperOptions& keeper, std::string_view program,
            std::ostream& err) {
  if (const Status done = remount_cakefs(keeper.mount); !done) {
    err << program << ": " << printable(done.error().message) << '\n';
    return kMountFailure;
  }
  // mount(8) adds those of fstab, so they are no error; but who typed one is to know.
  const bool has_setting =
      std::any_of(request.options.begin(), request.options.end(), [](const std::string& option) {
        return option != "allow_other" &&
               find_setting(std::string_view(option).substr(0, option.find('='))) != nullptr;
      });
  if (has_setting)
    err << program << ": " << printable(keeper.mount.mount_point)
        << ": settings stay as they are until it is unmounted and mounted again\n";
  return 0;
}

}  // namespace

Result<KeeperOptions> prepare_mount(const MountRequest& request, Config& config) {
  KeeperOptions keeper;
  if (request.source.empty() || is_local_path(request.source))
    return Error{Errc::invalid, cat("'", request.source,
                                    "' is no source; give hf: for the hub, or "
                                    "hf:ORG/NAME[@REV] for one repo")};
  for (const std::string& option : request.options) {
    // allow_other is the kernel's and ours.
    const bool is_generic = take_generic_option(keeper.mount, option);
    if (is_generic && option != "allow_other") continue;
    const Status status = config.set_option(option, "-o");
    const bool is_unknown =
        find_setting(std::string_view(option).substr(0, option.find('='))) == nullptr;
    if (!status && !is_generic && !(request.ignores_unknown && is_unknown)) return status.error();
  }
  CAKE_TRY(apply_source(request.source, config));
  CAKE_TRY(check_subdir(config));
  // The worker starts in / and may be started again long after this shell is gone.
  for (const char* key : {"store", "token_file", "cafile", "pid_file"})
    if (config.is_set(key) && !config.text(key).starts_with("~/")) {
      const std::string path = CAKE_TRY(absolute_path(config.text(key)));
      CAKE_TRY(config.set(key, path, config.get(key).origin));
    }
  if (const std::string log = config.text("log");
      log != "syslog" && log != "stderr" && !log.starts_with("/")) {
    const std::string path = CAKE_TRY(absolute_path(log));
    CAKE_TRY(config.set("log", path, config.get("log").origin));
  }
  CAKE_TRY(config.set("store", config.store_directory(), config.get("store").origin));

  keeper.mount.source = request.source;
  keeper.mount.mount_point = request.directory;
  keeper.mount.store = config.store_directory();
  keeper.mount.allow_other = config.boolean("allow_other");
  keeper.mount.read_ahead_kb = static_cast<unsigned>(*config.count("read_ahead_kb"));
  keeper.is_foreground = request.is_foreground;
  keeper.worker = run_mount_worker;
  keeper.arguments = config.explicit_options();
  keeper.arguments.insert(keeper.arguments.begin(), request.source);
  return keeper;
}

int run_mount(const MountRequest& request, Config config, std::string_view program,
              std::ostream& err) {
  Result<KeeperOptions> keeper = prepare_mount(request, config);
  if (!keeper) {
    err << program << ": " << printable(keeper.error().message) << '\n';
    return kMountUsage;
  }
  Result<std::string> mount_point = request.is_dry_run ? look_at_mount_point(request.directory)
                                                       : prepare_mount_point(request.directory);
  if (!mount_point) {
    err << program << ": " << printable(mount_point.error().message) << '\n';
    return mount_point.error().code == Errc::invalid ? kMountUsage : kMountFailure;
  }
  if (const Status apart = check_apart(config, *mount_point); !apart) {
    err << program << ": " << printable(apart.error().message) << '\n';
    return kMountUsage;
  }
  if (request.is_dry_run) return 0;
  keeper->mount.mount_point = *mount_point;
  if (keeper->mount.is_remount) return remount(request, *keeper, program, err);
  return run_keeper(*keeper);
}

std::optional<MountRequest> parse_mount_helper(const std::vector<std::string>& args,
                                               std::ostream& err) {
  constexpr const char* kUsage = "usage: mount.cakefs SOURCE DIR [-sfnvw] [-o OPTION[,OPTION]…]\n";
  MountRequest request;
  std::vector<std::string> words;
  for (size_t i = 0; i < args.size(); i++) {
    const std::string& arg = args[i];
    if (arg.size() < 2 || arg[0] != '-') {
      words.push_back(arg);
      continue;
    }
    for (size_t j = 1; j < arg.size(); j++) {
      const char letter = arg[j];
      if (letter == 's') {
        request.ignores_unknown = true;
      } else if (letter == 'f') {
        request.is_dry_run = true;
      } else if (letter == 'o' || letter == 't' || letter == 'N') {
        // The rest of the word, or the next one, is its value.  -t TYPE.SUBTYPE says nothing new.
        std::string value = arg.substr(j + 1);
        if (value.empty() && i + 1 < args.size()) value = args[++i];
        if (value.empty() || letter == 'N') {
          err << "mount.cakefs: -" << letter
              << (letter == 'N' ? " is not supported\n" : " needs a value\n") << kUsage;
          return std::nullopt;
        }
        if (letter == 'o')
          for (std::string& option : Config::split_options(value))
            request.options.push_back(std::move(option));
        break;
      } else if (letter != 'n' && letter != 'v' && letter != 'w' && letter != 'r') {
        err << "mount.cakefs: unknown flag -" << letter << '\n' << kUsage;
        return std::nullopt;
      }
    }
  }
  if (words.size() != 2) {
    err << kUsage;
    return std::nullopt;
  }
  request.source = words[0];
  request.directory = words[1];
  return request;
}

int run_mount_helper(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  if (args.size() == 1 && (args[0] == "--version" || args[0] == "-V")) {
    out << "mount.cakefs " << version() << '\n';
    return 0;
  }
  const std::optional<MountRequest> request = parse_mount_helper(args, err);
  if (!request) return kMountUsage;
  Result<Config> config = Config::load(ConfigSources::of_process(false));
  if (!config) {
    err << "mount.cakefs: " << config.error().message << '\n';
    return config.error().code == Errc::invalid ? kMountUsage : kMountSystem;
  }
  return run_mount(*request, std::move(*config), "mount.cakefs", err);
}

std::optional<std::string> find_mounted(const std::string& source,
                                        const std::string& store_directory,
                                        const std::string& folder) {
  const Result<std::vector<MountRecord>> records = list_mount_records();
  if (!records) return std::nullopt;
  for (const MountRecord& record : *records) {
    if (!is_whole_hub(record.source) || record.store != store_directory) continue;
    const std::string path = record.mount_point + "/" + folder;
    std::array<char, 4096> value{};
    const ssize_t bytes = getxattr(path.c_str(), "user.cake.source", value.data(), value.size());
    if (bytes > 0 && std::string_view(value.data(), static_cast<size_t>(bytes)) == source)
      return path;
  }
  return std::nullopt;
}

}  // namespace cake
