// Contents whose hashes are true, for tests that compare whole files.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "store/base/digest.h"
#include "store/recipe.h"
#include "tests/support/store_fixture.h"

namespace cake {

// A content with the sha256 of `bytes`, of `source`, in a snapshot of one file; its commit follows
// from source and path.
inline ContentRow true_content(Store& store, const std::string& source, const std::string& path,
                               ByteSpan bytes) {
  const RowId repo = must(store.index().get_repo(source, {RepoType::model, "org/name"}));
  TreeEntry entry{path, bytes.size(), {}};
  entry.ids.sha256 = file_hash_hex(FileHash::sha256, bytes);
  const std::string commit = blake3(as_bytes(cat(source, " ", path))).hex().substr(0, 40);
  const auto snapshot = must(store.index().put_snapshot(repo, commit, 1'700'000'000, {entry}));
  must(store.chunks().record_snapshot(source, *snapshot));
  return *must(store.index().find_content(snapshot->content_id(0)));
}

// Cuts the content and stores `bytes` as its extents, all but those in `left_out`.
inline void store_bytes(StoreFixture& fixture, const ContentRow& content, ByteSpan bytes,
                        const std::vector<uint64_t>& left_out = {}) {
  const Cutter wanted = wanted_cutter(content.path);
  const Cut cut = cut_file(wanted, bytes, bytes.size());
  must(begin_recipe(fixture.store(), content, cut, bytes));
  for (uint64_t i = 0; i < cut.extents.count(); i++) {
    if (std::find(left_out.begin(), left_out.end(), i) != left_out.end()) continue;
    const Extent extent = cut.extents.at(i);
    fixture.put(content.id, i, bytes.subspan(extent.offset, extent.length));
  }
  must(fixture.chunks().flush());
}

}  // namespace cake
