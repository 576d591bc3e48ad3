#include "fs/errno_map.h"

#include <cerrno>

namespace cake {

int errno_for(Errc code) {
  switch (code) {
    case Errc::not_found:
      return ENOENT;
    case Errc::stale:
      return ESTALE;
    case Errc::denied:
      return EACCES;
    case Errc::no_space:
      return ENOSPC;
    case Errc::offline:
      return EHOSTUNREACH;
    case Errc::timeout:
    case Errc::rate_limited:
      return ETIMEDOUT;
    case Errc::cancelled:
      return EINTR;
    case Errc::invalid:
      return EINVAL;
    case Errc::unsupported:
      return EOPNOTSUPP;
    case Errc::upstream:
    case Errc::corrupt:
    case Errc::io:
      return EIO;
  }
  return EIO;
}

int errno_for_names(Errc code) {
  if (code == Errc::timeout || code == Errc::rate_limited) return EHOSTUNREACH;
  return errno_for(code);
}

int errno_for_listings(Errc code) {
  return code == Errc::not_found ? ESTALE : errno_for_names(code);
}

}  // namespace cake
