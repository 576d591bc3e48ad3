#include "tools/command.h"

#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "store/base/bytes.h"
#include "tools/table.h"

namespace cake {

int exit_status(Errc code) {
  switch (code) {
    case Errc::not_found:
      return 3;
    case Errc::denied:
      return 4;
    case Errc::no_space:
      return 5;
    case Errc::offline:
      return 6;
    case Errc::cancelled:
      return kExitInterrupted;
    case Errc::invalid:
    case Errc::unsupported:
      return kExitUsage;
    case Errc::timeout:
    case Errc::rate_limited:
    case Errc::upstream:
    case Errc::corrupt:
    case Errc::stale:
    case Errc::io:
      return kExitFailed;
  }
  return kExitFailed;
}

Error local_error(Error error) {
  if (error.code == Errc::not_found || error.code == Errc::denied) error.code = Errc::io;
  return error;
}

Format choose_format(const Globals& globals, bool stdout_is_terminal) {
  if (globals.quiet || globals.format == "quiet") return Format::quiet;
  if (globals.json || globals.format == "json") return Format::json;
  if (globals.format == "human") return Format::human;
  return stdout_is_terminal ? Format::human : Format::tabs;
}

int fail(Context& context, const Error& error) {
  context.err << "cake: " << printable(error.message) << '\n';
  return exit_status(error.code);
}

Result<std::string> absolute_path(const std::string& path) {
  std::error_code failure;
  const std::filesystem::path absolute = std::filesystem::absolute(path, failure);
  if (failure) return Error{Errc::io, cat("the working directory: ", failure.message())};
  return absolute.lexically_normal().string();
}

void say(Context& context, std::string_view message) {
  if (!context.globals.quiet) context.err << printable(message) << '\n';
}

bool is_confirmed(Context& context, const std::string& question) {
  if (context.globals.yes) return true;
  if (isatty(STDIN_FILENO) == 0) {
    context.err << "cake: " << printable(question) << " (give -y to answer yes)\n";
    return false;
  }
  context.err << printable(question) << " [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

}  // namespace cake
