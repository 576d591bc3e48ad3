#include "fetch/file_places.h"

#include <algorithm>

#include "store/base/log.h"

namespace cake {

namespace {

// Many forks hold the same small files; a hub that refuses this many refuses them all.
constexpr size_t kMaxPlaces = 8;
// As long as a failure is the answer to new readers (fetch/file_trouble.cc).
constexpr Millis kExhaustedFor{5'000};
// Finding the places goes through many snapshots, and what they hold changes seldom.
constexpr Millis kKnownFor{60'000};

}  // namespace

FilePlaces::FilePlaces(Index& index, const ContentRow& content)
    : index_(index), content_(content), place_{content.repo, content.commit, content.path} {}

FileAddress FilePlaces::address() const {
  MutexLock lock(mutex_);
  return {place_.repo, place_.commit, place_.path, content_.ids, content_.bytes};
}

void FilePlaces::leave(const FileAddress& refused, Then then) {
  const ContentPlace left{refused.repo, refused.commit, refused.path};
  std::optional<bool> has_other;
  {
    MutexLock lock(mutex_);
    if (!is_looking_) has_other = try_next(left);
    if (!has_other) {
      askers_.push_back({left, std::move(then)});
      if (std::exchange(is_looking_, true)) return;  // who looks answers us too
    }
  }
  if (has_other)
    then(*has_other);  // NOLINT(bugprone-use-after-move): moved only when there is no answer
  else
    look();
}

std::optional<bool> FilePlaces::try_next(const ContentPlace& left) {
  if (place_ != left) return true;  // another range of the file was refused there earlier
  if (steady_now() < exhausted_until_) return false;
  if (steady_now() >= known_until_) return std::nullopt;
  refused_.push_back(left);
  for (const ContentPlace& place : known_) {
    if (std::find(refused_.begin(), refused_.end(), place) != refused_.end()) continue;
    place_ = place;
    return true;
  }
  refused_.clear();
  exhausted_until_ = steady_now() + kExhaustedFor;
  return false;
}

void FilePlaces::look() {
  Result<std::vector<ContentPlace>> found = index_.list_places(content_.id, kMaxPlaces);
  if (!found) log_warn(found.error().with("looking for another place of a file").message);
  std::vector<std::pair<Then, bool>> answers;
  {
    MutexLock lock(mutex_);
    known_ = found ? std::move(*found) : std::vector<ContentPlace>();
    known_until_ = steady_now() + kKnownFor;
    is_looking_ = false;
    for (Asker& asker : askers_)
      answers.emplace_back(std::move(asker.then), try_next(asker.left).value_or(false));
    askers_.clear();
  }
  for (const auto& [then, has_other] : answers) then(has_other);
}

}  // namespace cake
