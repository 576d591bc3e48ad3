#include "fs/hf_names.h"

#include <nlohmann/json.hpp>

#include "store/base/digest.h"

namespace cake {

namespace {

constexpr RepoType kTypes[] = {RepoType::model, RepoType::dataset, RepoType::space};
constexpr size_t kBlobDigits = 40;

}  // namespace

std::string hf_folder(const RepoName& repo) {
  std::string folder = cat(repo_type_plural(repo.type), "--", repo.id);
  if (const size_t slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  return folder;
}

std::optional<RepoName> parse_hf_folder(std::string_view folder) {
  if (folder.find('/') != std::string_view::npos) return std::nullopt;
  for (const RepoType type : kTypes) {
    const std::string prefix = cat(repo_type_plural(type), "--");
    if (!folder.starts_with(prefix)) continue;
    // No id has "--" in it, so that at most one is the slash.
    RepoName repo{type, std::string(folder.substr(prefix.size()))};
    if (const size_t dashes = repo.id.find("--"); dashes != std::string::npos)
      repo.id.replace(dashes, 2, "/");
    if (is_valid_repo_id(repo.id)) return repo;
  }
  return std::nullopt;
}

std::optional<HfPlace> parse_hf_place(std::string_view path) {
  HfPlace place;
  if (path.empty()) return place;
  const auto next = [&path]() -> std::string_view {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view word = path.substr(0, end);
    path.remove_prefix(std::min(end + 1, path.size()));
    return word;
  };
  const std::optional<RepoName> repo = parse_hf_folder(next());
  if (!repo) return std::nullopt;
  place.repo = *repo;
  place.kind = HfPlace::Kind::repo;
  if (path.empty()) return place;
  const std::string_view word = next();
  if (word == "refs") {
    place.kind = HfPlace::Kind::refs;
    place.rest = path;
    return place;
  }
  if (word == ".no_exist") {
    place.kind = HfPlace::Kind::no_exist;
    if (path.empty()) return place;
    place.kind = HfPlace::Kind::no_exist_commit;
    place.commit = next();
    place.rest = path;
    if (!is_commit(place.commit)) return std::nullopt;
    return place;
  }
  if (!path.empty()) return std::nullopt;
  if (word == "blobs")
    place.kind = HfPlace::Kind::blobs;
  else if (word == "snapshots")
    place.kind = HfPlace::Kind::snapshots;
  else if (word == "trees")
    place.kind = HfPlace::Kind::trees;
  else
    return std::nullopt;
  return place;
}

std::string hf_blob_name(const RepoName& repo, const std::string& commit, const TreeEntry& entry) {
  if (!entry.ids.sha256.empty()) return entry.ids.sha256;
  const ContentKey key = content_key(repo, commit, entry);
  if (key.kind == ContentKind::git_blob) return key.id;
  return blake3(as_bytes(key.id)).hex().substr(0, kBlobDigits);
}

std::string hf_link_target(const Snapshot& snapshot, uint32_t ordinal) {
  const Node& node = snapshot.nodes()[ordinal];
  std::string target = "../../blobs/";
  for (uint32_t above = node.parent; above != 0; above = snapshot.nodes()[above].parent)
    target.insert(0, "../");
  return target + hf_blob_name(snapshot.repo(), snapshot.commit(), snapshot.entries()[node.entry]);
}

std::string hf_tree_json(const Snapshot& snapshot) {
  using Json = nlohmann::ordered_json;
  Json::object_t files;
  files.reserve(snapshot.entries().size());
  for (const TreeEntry& entry : snapshot.entries()) {
    Json file = {{"size", entry.bytes}, {"blob_id", entry.ids.git_oid}};
    if (!entry.ids.sha256.empty()) {
      file["lfs_sha256"] = entry.ids.sha256;
      file["lfs_size"] = entry.bytes;
    }
    if (!entry.ids.xet.empty()) file["xet_hash"] = entry.ids.xet;
    // Entries are sorted, each path once; insert() would look through all that is there.
    files.emplace_back(entry.path, std::move(file));
  }
  const Json tree = {{"format_version", 1}, {"files", Json(std::move(files))}};
  // To the byte what huggingface_hub 1.x writes.  Paths are bytes; what is not UTF-8 is shown with
  // replacement characters, never thrown at.
  return tree.dump(1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace cake
