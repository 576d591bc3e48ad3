#include "store/twin.h"

#include "store/coverage.h"
#include "store/pack_record.h"

namespace cake {

namespace {

struct Twin {
  ContentRow content;
  RecipeRow row;
  Recipe recipe;
};

bool is_same_cut(const RecipeRow& one, const RecipeRow& other) {
  return one.cutter == other.cutter && one.head == other.head;
}

// Those whose cut is known.
Result<std::vector<Twin>> find_cut_twins(Index& index, const ContentRow& content) {
  std::vector<Twin> twins;
  for (const RowId id : CAKE_TRY(index.find_twins(content))) {
    const std::optional<ContentRow> twin = CAKE_TRY(index.find_content(id));
    const std::optional<RecipeRow> row = CAKE_TRY(index.find_recipe(id));
    if (!twin || !row) continue;
    std::optional<Recipe> recipe = CAKE_TRY(load_recipe(index, *twin));
    if (recipe) twins.push_back({*twin, *row, std::move(*recipe)});
  }
  return twins;
}

// Whether `content` is cut as `recipe`, now or from before.
Result<bool> is_cut_alike(Store& store, const ContentRow& content, const RecipeRow& recipe) {
  const std::optional<RecipeRow> own = CAKE_TRY(store.index().find_recipe(content.id));
  if (own) return is_same_cut(*own, recipe);
  CAKE_TRY(store.index().put_recipe(content.id, recipe));
  CAKE_TRY(store.chunks().record_recipe(content_pack_name(content.source, content.key), recipe,
                                        content.bytes));
  const std::optional<RecipeRow> now = CAKE_TRY(store.index().find_recipe(content.id));
  return now && is_same_cut(*now, recipe);
}

}  // namespace

Result<uint64_t> adopt_twin(Store& store, const ContentRow& content) {
  Index& index = store.index();
  for (const Twin& twin : CAKE_TRY(find_cut_twins(index, content))) {
    if (!CAKE_TRY(is_cut_alike(store, content, twin.row))) continue;
    uint64_t here_bytes = 0;
    std::vector<PublishedExtent> extents;
    const auto publish = [&]() -> Status {
      if (extents.empty()) return {};
      CAKE_TRY(store.chunks().record_segment(content_pack_name(content.source, content.key),
                                             segment_items(extents)));
      CAKE_TRY(index.publish(extents, 0, 0));
      extents.clear();
      return {};
    };
    CAKE_TRY(each_extent(index, twin.content, twin.recipe, [&](const KnownExtent& known) -> Status {
      if (known.digest.is_zero()) return {};
      if (known.location) here_bytes += known.extent.length;
      extents.push_back({content.id, known.ordinal, known.digest, std::nullopt,
                         static_cast<uint32_t>(known.extent.length)});
      return extents.size() < kPublishPortion ? Status() : publish();
    }));
    CAKE_TRY(publish());
    // The hash that was computed is this one's too.
    CAKE_TRY(index.set_verification(content.id, Verification::verified));
    return here_bytes;
  }
  return uint64_t{0};
}

Result<uint64_t> twin_bytes(Index& index, const ContentRow& content) {
  const std::optional<RecipeRow> own = CAKE_TRY(index.find_recipe(content.id));
  for (const Twin& twin : CAKE_TRY(find_cut_twins(index, content))) {
    if (own && !is_same_cut(*own, twin.row)) continue;
    uint64_t here_bytes = 0;
    CAKE_TRY(each_extent(index, twin.content, twin.recipe, [&](const KnownExtent& known) -> Status {
      if (!known.digest.is_zero() && known.location) here_bytes += known.extent.length;
      return {};
    }));
    return here_bytes;
  }
  return uint64_t{0};
}

}  // namespace cake
