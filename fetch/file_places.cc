#include "fetch/file_places.h"

#include <algorithm>

#include "store/base/log.h"

namespace cake {

namespace {

// Many forks hold the same small files; a hub that refuses this many refuses them all.
constexpr size_t kMaxPlaces = 8;
// As long as a failure is the answer to new readers (fetch/file_trouble.cc).
constexpr Millis kExhaustedFor{5'000};

}  // namespace

FilePlaces::FilePlaces(Index& index, const ContentRow& content)
    : index_(index), content_(content), place_{content.repo, content.commit, content.path} {}

FileAddress FilePlaces::address() const {
  MutexLock lock(mutex_);
  return {place_.repo, place_.commit, place_.path, content_.ids, content_.bytes};
}

bool FilePlaces::leave(const FileAddress& refused) {
  const ContentPlace left{refused.repo, refused.commit, refused.path};
  {
    MutexLock lock(mutex_);
    if (place_ != left) return true;  // another range of the file was refused there earlier
    if (steady_now() < exhausted_until_) return false;
  }
  const Result<std::vector<ContentPlace>> known = index_.list_places(content_.id, kMaxPlaces);
  if (!known) {
    log_warn(known.error().with("looking for another place of a file").message);
    return false;
  }
  MutexLock lock(mutex_);
  if (place_ != left) return true;
  refused_.push_back(left);
  for (const ContentPlace& place : *known) {
    if (std::find(refused_.begin(), refused_.end(), place) != refused_.end()) continue;
    place_ = place;
    return true;
  }
  refused_.clear();
  exhausted_until_ = steady_now() + kExhaustedFor;
  return false;
}

}  // namespace cake
