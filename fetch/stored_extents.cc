#include "fetch/stored_extents.h"

#include <algorithm>

#include "store/base/log.h"

namespace cake {

Result<std::shared_ptr<StoredExtents::Segment>> StoredExtents::get_segment(const Extents& extents,
                                                                           uint64_t index) {
  {
    MutexLock lock(mutex_);
    const auto found = segments_.find(index);
    if (found != segments_.end()) return found->second;
  }
  auto segment = std::make_shared<Segment>();
  const uint64_t first = index * kSegmentExtents;
  const uint64_t count = std::min<uint64_t>(kSegmentExtents, extents.count() - first);
  segment->digests = CAKE_TRY(store_.index().find_digests(content_.id, first, count));
  segment->digests.resize(count);
  segment->locations.resize(count);
  std::vector<Digest> known;
  std::vector<uint64_t> places;
  for (uint64_t i = 0; i < count; i++) {
    if (segment->digests[i].is_zero()) continue;
    known.push_back(segment->digests[i]);
    places.push_back(i);
  }
  if (!known.empty()) {
    const auto locations = CAKE_TRY(store_.index().find_chunks(known));
    for (uint64_t i = 0; i < places.size() && i < locations.size(); i++)
      segment->locations[places[i]] = locations[i];
  }
  MutexLock lock(mutex_);
  return segments_.emplace(index, std::move(segment)).first->second;
}

Result<StoredExtents::Known> StoredExtents::find(const Extents& extents, uint64_t ordinal) {
  const std::shared_ptr<Segment> segment =
      CAKE_TRY(get_segment(extents, ordinal / kSegmentExtents));
  MutexLock lock(mutex_);
  const uint64_t place = ordinal % kSegmentExtents;
  return Known{segment->digests[place], segment->locations[place]};
}

void StoredExtents::set(uint64_t ordinal, const Digest& digest, std::optional<Location> location) {
  MutexLock lock(mutex_);
  const auto found = segments_.find(ordinal / kSegmentExtents);
  if (found == segments_.end()) return;  // loaded from the index when next touched
  const uint64_t place = ordinal % kSegmentExtents;
  found->second->digests[place] = digest;
  found->second->locations[place] = location;
}

std::vector<StoredExtents::Known> StoredExtents::find_again(const std::vector<uint64_t>& ordinals) {
  std::vector<Digest> digests;
  for (size_t i = 0; i < ordinals.size();) {
    // Runs of neighbours in one look-up.
    size_t end = i + 1;
    while (end < ordinals.size() && ordinals[end] == ordinals[end - 1] + 1) end++;
    const Result<std::vector<Digest>> run =
        store_.index().find_digests(content_.id, ordinals[i], end - i);
    if (run) digests.insert(digests.end(), run->begin(), run->end());
    digests.resize(end);
    i = end;
  }
  const auto locations = store_.index().find_chunks(digests);
  std::vector<Known> known(ordinals.size());
  for (size_t i = 0; i < ordinals.size(); i++) {
    if (digests[i].is_zero()) continue;
    known[i].digest = digests[i];
    if (locations && i < locations->size()) known[i].location = (*locations)[i];
    set(ordinals[i], known[i].digest, known[i].location);
  }
  return known;
}

void StoredExtents::note_bad_chunk(const Error& error, const Known& known, ByteRange bytes) {
  log_warn(error.with(trouble_.describe(bytes)).message);
  if (error.code != Errc::corrupt && error.code != Errc::not_found) return;
  const Status dropped = store_.index().drop_chunk(known.digest, *known.location);
  if (!dropped.ok()) log_warn(dropped.error().with("dropping a bad chunk").message);
}

ChunkPtr StoredExtents::read(const Extents& extents, uint64_t ordinal) {
  const Extent extent = extents.at(ordinal);
  const ByteRange bytes{extent.offset, extent.length};
  Result<Known> known = find(extents, ordinal);
  if (!known) {
    log_error(known.error().with(trouble_.describe(bytes)).message);
    return nullptr;
  }
  if (!known->location) return nullptr;
  // The second look is for a location that went stale: the chunk was moved, or evicted by another
  // process.
  for (int look = 0; look < 3; look++) {
    std::optional<Error> failure;
    if (known->location->plain_bytes == extent.length) {
      Result<ChunkPtr> chunk = store_.chunks().read(*known->location);
      if (chunk && (*chunk)->size() == extent.length) {
        store_.accesses().note_chunk(known->digest);
        return std::move(chunk).value();
      }
      if (!chunk) failure = chunk.error();
    }
    const auto again = store_.index().find_chunks({&known->digest, 1});
    std::optional<Location> now = again && !again->empty() ? again->front() : std::nullopt;
    // Only bytes that the index still vouches for are bad; others were moved or evicted.
    if (failure && now == known->location) {
      note_bad_chunk(*failure, *known, bytes);
      now = std::nullopt;
    }
    set(ordinal, known->digest, now);
    if (!now || now == known->location) break;
    known->location = now;
  }
  set(ordinal, known->digest, std::nullopt);
  return nullptr;
}

}  // namespace cake
