#include "store/base/result.h"

#include <cstdio>
#include <cstdlib>

namespace cake {

std::string_view errc_name(Errc code) {
  switch (code) {
    case Errc::not_found:
      return "not_found";
    case Errc::stale:
      return "stale";
    case Errc::denied:
      return "denied";
    case Errc::no_space:
      return "no_space";
    case Errc::offline:
      return "offline";
    case Errc::timeout:
      return "timeout";
    case Errc::rate_limited:
      return "rate_limited";
    case Errc::upstream:
      return "upstream";
    case Errc::corrupt:
      return "corrupt";
    case Errc::io:
      return "io";
    case Errc::cancelled:
      return "cancelled";
    case Errc::invalid:
      return "invalid";
    case Errc::unsupported:
      return "unsupported";
  }
  return "unknown";
}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "cakefs: bug: %s:%d: %s does not hold\n", file, line, condition);
  std::abort();
}

}  // namespace cake
