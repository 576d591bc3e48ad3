#include "fs/xattr.h"

namespace cake {

namespace {

Result<Xattrs> file_xattrs(Client& client, RowId content) {
  const std::shared_ptr<FileReader> reader = CAKE_TRY(client.open(content));
  const ContentRow& row = reader->content();
  const Cached cached = CAKE_TRY(client.store().index().cached(content));
  Xattrs attributes;
  if (!row.ids.sha256.empty()) attributes.emplace_back("user.cake.sha256", row.ids.sha256);
  attributes.emplace_back("user.cake.cached", std::to_string(cached.bytes));
  attributes.emplace_back("user.cake.stored", std::to_string(cached.stored_bytes));
  const std::string cutter = reader->cutter_name();
  if (!cutter.empty()) attributes.emplace_back("user.cake.format", cutter);
  // The reader's row is as old as the reader.
  const std::optional<ContentRow> now = CAKE_TRY(client.store().index().find_content(content));
  const bool is_verified = now && now->verified, is_mismatched = now && now->mismatched;
  attributes.emplace_back("user.cake.verified", is_verified     ? "yes"
                                                : is_mismatched ? "mismatch"
                                                                : "no");
  if (const std::optional<std::string> error = reader->last_error())
    attributes.emplace_back("user.cake.error", *error);
  return attributes;
}

}  // namespace

Result<Xattrs> xattrs_of(Client& client, View& view, uint64_t node) {
  if (node_kind(node) == NodeKind::file) return file_xattrs(client, node_payload(node));
  const NodeKind kind = node_kind(node);
  if (kind == NodeKind::link || kind == NodeKind::text || kind == NodeKind::live) return Xattrs{};
  return view.directory_xattrs(node);
}

}  // namespace cake
