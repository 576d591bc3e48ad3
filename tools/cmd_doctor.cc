// cake doctor
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <ostream>

#include "fetch/credentials.h"
#include "fetch/reference.h"
#include "fs/passthrough_support.h"
#include "store/base/bytes.h"
#include "store/base/file.h"
#include "store/codec/kernels.h"
#include "tools/session.h"
#include "tools/table.h"

namespace cake {
namespace {

// Each line: what was looked at, how it is, and what to do about it.
class Findings {
 public:
  void ok(const std::string& what, const std::string& found) { add("ok", what, found, ""); }
  void warn(const std::string& what, const std::string& found, const std::string& remedy) {
    add("warn", what, found, remedy);
  }
  void fail(const std::string& what, const std::string& found, const std::string& remedy) {
    add("fail", what, found, remedy);
    has_failed_ = true;
  }
  bool has_failed() const { return has_failed_; }
  const Table& table() const { return table_; }

 private:
  void add(const std::string& state, const std::string& what, const std::string& found,
           const std::string& remedy) {
    table_.add({what, state, found, remedy.empty() ? Cell(std::string()) : Cell(remedy)});
  }
  Table table_{{{"CHECK"}, {"STATE"}, {"FOUND"}, {"REMEDY"}}};
  bool has_failed_ = false;
};

constexpr uint64_t kSmallFile = 64 * kKiB;

std::string read_first_line(const std::string& path) {
  const Result<std::string> text = read_text_file(path, kSmallFile);
  return text ? text->substr(0, text->find('\n')) : std::string();
}

struct KernelVersion {
  int major = 0, minor = 0;
  bool operator<(const KernelVersion& other) const {
    return major != other.major ? major < other.major : minor < other.minor;
  }
};

KernelVersion parse_release(std::string_view release) {
  KernelVersion version;
  const auto [end, error] =
      std::from_chars(release.data(), release.data() + release.size(), version.major);
  if (error == std::errc() && end != release.data() + release.size() && *end == '.')
    std::from_chars(end + 1, release.data() + release.size(), version.minor);
  return version;
}

void check_kernel(Findings& findings, const Config& config) {
  utsname system{};
  uname(&system);
  const KernelVersion kernel = parse_release(system.release);
  if (kernel < KernelVersion{5, 4})
    findings.fail("kernel", system.release, "5.4 or newer is needed");
  else
    findings.ok("kernel", system.release);
  const bool is_new = !(kernel < KernelVersion{6, 9});
  if (is_new)
    findings.ok("restart", "requests survive a crash and an upgrade");
  else
    findings.warn("restart", "requests under way fail when the worker crashes",
                  "kernel 6.9 or newer sends them again");
  if (const auto obstacle = passthrough_obstacle(config.store_directory()))
    findings.warn("passthrough",
                  cat("materialized files are read through the daemon: ", obstacle->what),
                  obstacle->remedy);
  else
    findings.ok("passthrough", "possible: the kernel reads materialized files by itself");
}

std::optional<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string file = cat(rest.substr(0, end), "/", name);
    if (access(file.c_str(), X_OK) == 0) return file;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return std::nullopt;
}

void check_fuse(Findings& findings) {
  const Result<File> device = File::open("/dev/fuse", File::Mode::read_write);
  if (device)
    findings.ok("/dev/fuse", "can be opened");
  else if (!path_exists("/dev/fuse"))
    findings.fail("/dev/fuse", "absent",
                  "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN");
  else
    findings.fail("/dev/fuse", device.error().message, "chmod 0666 /dev/fuse, or mount as root");

  const std::optional<std::string> helper = find_program("fusermount3");
  if (helper)
    findings.ok("fusermount3", *helper);
  else if (geteuid() == 0)
    findings.ok("fusermount3", "absent; root does not need it");
  else
    findings.fail("fusermount3", "absent", "install the package fuse3, or mount as root");

  if (geteuid() == 0) {
    findings.ok("allow_other", "on for root's mounts");
    return;
  }
  const Result<std::string> conf = read_text_file("/etc/fuse.conf", kSmallFile);
  const bool is_allowed = conf && cat("\n", *conf).find("\nuser_allow_other") != std::string::npos;
  if (is_allowed)
    findings.ok("allow_other", "allowed");
  else
    findings.warn("allow_other", "only root may let other users into a mount",
                  "user_allow_other in /etc/fuse.conf");
}

void check_limits(Findings& findings) {
  const std::string background = read_first_line("/sys/module/fuse/parameters/max_user_bgreq");
  if (geteuid() != 0 && !background.empty() && std::atol(background.c_str()) < 4096)
    findings.warn("max_user_bgreq", background,
                  "as root: echo 4096 > /sys/module/fuse/parameters/max_user_bgreq");
  else if (!background.empty())
    findings.ok("max_user_bgreq", background);
  if (const std::string pages = read_first_line("/proc/sys/fs/fuse/max_pages_limit");
      !pages.empty()) {
    if (std::atol(pages.c_str()) < 256)
      findings.warn("max_pages_limit", pages, "sysctl fs.fuse.max_pages_limit=256");
    else
      findings.ok("max_pages_limit", pages);
  }
  if (geteuid() == 0)
    findings.ok("readahead", "set when mounting (read_ahead_kb)");
  else
    findings.warn("readahead", "the kernel's 128 KiB", "mount as root for read_ahead_kb");
}

void check_codec(Findings& findings) {
  const CodecKernels& used = best_kernels();
  const CodecKernels& fastest = *all_kernels().back();
  if (&used != &fastest)
    findings.warn("codec",
                  cat("kernels: ", used.name, "; those for ", fastest.name, " fail their check"),
                  "right, but slower; report it, with the model of the processor");
  else
    findings.ok("codec", cat("kernels: ", used.name));
}

void check_store(Findings& findings, const Config& config) {
  const std::string directory = config.store_directory();
  Metrics metrics;
  const Result<std::unique_ptr<Store>> store = open_store(config, metrics);
  if (!store) {
    findings.fail("store", store.error().message, "choose another with --store or store=");
    return;
  }
  findings.ok("store", directory);
  const Result<DiskSpace> space = disk_space(directory);
  if (!space) {
    findings.warn("disk", space.error().message, "look at the disk of the store");
    return;
  }
  const std::string found =
      cat(format_size(space->free_bytes), " free of ", format_size(space->total_bytes));
  if (space->free_bytes < config.percent_size("min_free").bytes_of(space->total_bytes))
    findings.warn("disk", found, "less than min_free: make room, or choose another store");
  else
    findings.ok("disk", found);
}

void check_token(Findings& findings, const Config& config) {
  const Credentials credentials(config.text("token_file"));
  const Result<std::string> token = credentials.token();
  if (!token)
    findings.fail("token", token.error().message, "mend the file, or leave token_file away");
  else if (token->empty())
    findings.ok("token", "none: public repos only");
  else
    findings.ok("token", cat("from ", credentials.origin()));
}

void check_hub(Findings& findings, const Config& config) {
  const std::string endpoint = config.text("endpoint");
  for (const char* name : {"https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"})
    if (std::getenv(name) != nullptr) {
      findings.ok("proxy", cat(name, " is set"));
      break;
    }
  if (config.text("offline") == "yes") {
    findings.ok("hub", "not asked: offline=yes");
    return;
  }
  Metrics metrics;
  HttpClient http(http_options(config), metrics);
  HttpRequest request;
  // An API path that any hub answers; which status does not matter.
  request.url = endpoint + "/api/models?limit=1";
  request.deadline = Deadline::after(Millis(3000));
  const SteadyTime start = steady_now();
  const Result<HttpAnswer> answer = wait_for<HttpAnswer>(
      [&](Done<HttpAnswer> done) { http_get(http, request, kMiB, std::move(done)); });
  const auto took = std::chrono::duration_cast<Millis>(steady_now() - start).count();
  if (!answer)
    findings.fail("hub", cat(endpoint, ": ", answer.error().message),
                  "network, proxy (https_proxy) or endpoint; cached files work without");
  else if (answer->head.status >= 500)
    findings.warn("hub", cat(endpoint, " answers ", answer->head.status), "try again later");
  else
    findings.ok("hub", cat(endpoint, " answers in ", took, " ms"));
}

int run_doctor(Context& context) {
  Findings findings;
  check_kernel(findings, context.config);
  check_fuse(findings);
  check_limits(findings);
  check_codec(findings);
  check_store(findings, context.config);
  check_token(findings, context.config);
  check_hub(findings, context.config);
  findings.table().print(context.format, context.out,
                         context.globals.no_truncate ? 0 : terminal_width());
  return findings.has_failed() ? kExitFailed : kExitOk;
}

}  // namespace

void add_doctor(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("doctor", "Check what mounts need, and say what to do");
  verb->callback([&run] { run = run_doctor; });
}

}  // namespace cake
