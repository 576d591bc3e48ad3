#include "fetch/hub_content.h"

#include <algorithm>
#include <array>

#include "store/base/digest.h"

namespace cake {

const HubFile* HubRevision::find(std::string_view path) const {
  const auto found = std::lower_bound(
      files.begin(), files.end(), path,
      [](const HubFile& file, std::string_view key) { return file.entry.path < key; });
  return found != files.end() && found->entry.path == path ? &*found : nullptr;
}

void HubContent::list_author(RepoType type, const std::string& author,
                             Done<std::vector<HubRepo>> done) {
  Result<std::vector<HubRepo>> all = list_repos(type);
  if (all)
    std::erase_if(*all, [&](const HubRepo& repo) { return !repo.id.starts_with(author + "/"); });
  done(std::move(all));
}

HubRef name_ref(const std::string& revision) {
  constexpr std::string_view kHeads = "refs/heads/", kTags = "refs/tags/";
  using Kind = HubRef::Kind;
  if (revision.starts_with(kHeads))
    return {Kind::branch, revision.substr(kHeads.size()), revision, ""};
  if (revision.starts_with(kTags)) return {Kind::tag, revision.substr(kTags.size()), revision, ""};
  if (revision.starts_with("refs/convert/")) return {Kind::convert, revision, revision, ""};
  if (revision.starts_with("refs/pr/")) return {Kind::pull_request, revision, revision, ""};
  return {Kind::branch, revision, cat(kHeads, revision), ""};
}

std::string commit_of(const std::vector<HubFile>& files) {
  std::string listing;
  for (const HubFile& file : files) {
    const TreeEntry& entry = file.entry;
    listing += cat(entry.path, '\0', entry.bytes, ' ', entry.ids.git_oid, ' ', entry.ids.sha256,
                   ' ', entry.ids.xet, '\n');
  }
  return file_hash_hex(FileHash::git_blob_sha1, as_bytes(listing));
}

std::string lfs_pointer(const std::string& sha256, uint64_t bytes) {
  return cat("version https://git-lfs.github.com/spec/v1\noid sha256:", sha256, "\nsize ", bytes,
             "\n");
}

FileIds ids_from_hash(const std::string& hash_hex, bool is_lfs, uint64_t bytes) {
  if (!is_lfs) return {hash_hex, "", ""};
  const std::string pointer = lfs_pointer(hash_hex, bytes);
  return {file_hash_hex(FileHash::git_blob_sha1, as_bytes(pointer)), hash_hex, ""};
}

bool is_lfs_file(std::string_view path, uint64_t bytes, uint64_t lfs_threshold_bytes) {
  constexpr std::array<std::string_view, 24> kEndings = {
      ".7z",      ".arrow", ".bin", ".bz2",         ".ckpt", ".gguf",    ".gz",  ".h5",
      ".msgpack", ".npy",   ".npz", ".onnx",        ".ot",   ".parquet", ".pb",  ".pickle",
      ".pkl",     ".pt",    ".pth", ".safetensors", ".tar",  ".tflite",  ".zip", ".zst"};
  return bytes >= lfs_threshold_bytes ||
         std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return path.ends_with(ending); });
}

}  // namespace cake
