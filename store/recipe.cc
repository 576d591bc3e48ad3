#include "store/recipe.h"

#include <utility>

#include "store/format/safetensors.h"

namespace cake {

Result<std::optional<Recipe>> load_recipe(Index& index, const ContentRow& content) {
  const std::optional<RecipeRow> row = CAKE_TRY(index.find_recipe(content.id));
  if (!row) return std::nullopt;
  if (content.bytes > kMaxContentBytes)
    return Error{Errc::corrupt, cat("recipe of ", content.repo.id, "/", content.path,
                                    ": no file has ", content.bytes, " bytes")};
  Cut cut = cut_file(row->cutter, row->head, content.bytes);
  if (cut.cutter != row->cutter)
    return Error{Errc::corrupt,
                 cat("recipe of ", content.repo.id, "/", content.path, ": ", cut.refusal)};
  return Recipe{row->cutter, std::move(cut.extents)};
}

Status begin_recipe(Store& store, const ContentRow& content, const Cut& cut, ByteSpan head) {
  RecipeRow row;
  row.cutter = cut.cutter;
  if (cut.cutter == Cutter::safetensors) {
    const uint64_t needed = CAKE_TRY(safetensors_header_bytes(head, content.bytes));
    if (needed > head.size())
      return Error{Errc::invalid, cat("recipe of ", content.repo.id, "/", content.path,
                                      ": the head is shorter than the header")};
    row.head = to_buffer(head.first(needed));
  }
  CAKE_TRY(store.index().put_recipe(content.id, row));
  return store.chunks().record_recipe(content_pack_name(content.source, content.key), row,
                                      content.bytes);
}

}  // namespace cake
