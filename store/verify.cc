#include "store/verify.h"

#include "store/base/log.h"
#include "store/coverage.h"

namespace cake {

namespace {

// Walks over a content's extents, reading what is here.
class Check {
 public:
  Check(Store& store, const ContentRow& content, const VerifyOptions& options)
      : store_(store), content_(content), options_(options), hash_(whole_hash(content)) {
    if (hash_) hasher_.emplace(hash_->kind, content.bytes);
  }

  Result<ContentCheck> run() {
    if (content_.bytes > 0) {
      const std::optional<Recipe> recipe = CAKE_TRY(load_recipe(store_.index(), content_));
      if (!recipe) return result_;
      if (options_.only_whole && !CAKE_TRY(missing_ranges(store_.index(), content_)).empty())
        return result_;
      CAKE_TRY(each_extent(store_.index(), content_, *recipe,
                           [&](const KnownExtent& known) -> Status { return take(known); }));
    }
    if (!is_whole_) return result_;
    result_.state = ContentCheck::State::no_hash;
    if (!hash_) return result_;
    const bool is_right = hasher_->finish_hex() == hash_->hex;
    result_.state = is_right ? ContentCheck::State::verified : ContentCheck::State::mismatch;
    return result_;
  }

 private:
  Status take(const KnownExtent& known) {
    if (options_.should_stop && options_.should_stop())
      return Error{Errc::cancelled, "the check was ended"};
    const ChunkPtr chunk = known.location ? CAKE_TRY(read(known)) : nullptr;
    if (!chunk) {
      is_whole_ = false;
      return {};
    }
    result_.checked_bytes += chunk->size();
    if (is_whole_ && hasher_) hasher_->update(chunk->bytes());
    return {};
  }

  // nullptr when the chunk is not what the row says; then the row is gone.
  Result<ChunkPtr> read(const KnownExtent& known) {
    std::optional<Location> location = known.location;
    // The second look is for a chunk that was moved or evicted since the rows were read.
    for (int look = 0; look < 2 && location; look++) {
      Result<ChunkPtr> chunk = store_.chunks().read(*location);
      if (chunk && (*chunk)->size() == known.extent.length &&
          (!options_.checks_digests || blake3((*chunk)->bytes()) == known.digest))
        return chunk;
      if (!chunk && chunk.error().code != Errc::corrupt && chunk.error().code != Errc::not_found)
        return chunk.error();
      const auto now = CAKE_TRY(store_.index().find_chunks({&known.digest, 1}));
      if (now.front() == location) {
        if (!options_.only_looks) CAKE_TRY(store_.index().drop_chunk(known.digest, *location));
        result_.damaged.push_back({known.extent.offset, known.extent.length});
        return ChunkPtr();
      }
      location = now.front();
    }
    return ChunkPtr();
  }

  Store& store_;
  const ContentRow& content_;
  const VerifyOptions& options_;
  const std::optional<WholeHash> hash_;
  std::optional<FileHasher> hasher_;
  bool is_whole_ = true;
  ContentCheck result_;
};

}  // namespace

std::optional<WholeHash> whole_hash(const ContentRow& content) {
  if (content.key.kind == ContentKind::sha256) return WholeHash{FileHash::sha256, content.key.id};
  if (!content.ids.sha256.empty()) return WholeHash{FileHash::sha256, content.ids.sha256};
  if (content.key.kind == ContentKind::git_blob)
    return WholeHash{FileHash::git_blob_sha1, content.key.id};
  return std::nullopt;
}

Result<ContentCheck> check_content(Store& store, const ContentRow& content,
                                   const VerifyOptions& options) {
  ContentCheck check = CAKE_TRY(Check(store, content, options).run());
  if (options.only_looks) return check;
  if (check.state == ContentCheck::State::verified && !content.verified)
    CAKE_TRY(store.index().set_verification(content.id, Verification::verified));
  if (check.state == ContentCheck::State::mismatch)
    CAKE_TRY(store.index().set_verification(content.id, Verification::mismatch));
  return check;
}

Status reject_content(Store& store, const ContentRow& content) {
  return store.index().drop_recipe(content.id);
}

}  // namespace cake
