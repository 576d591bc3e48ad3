// The names of a Hugging Face cache: which path means what.  Pure; names come from anybody.
//
// The layout is the clients' own (huggingface_hub, "Understand caching"):
//   models--ORG--NAME/refs/main            40 hex digits of the commit, no newline
//   models--ORG--NAME/snapshots/COMMIT/F   link to ../../blobs/ETAG
//   models--ORG--NAME/blobs/ETAG           sha256 of an LFS file, git blob id of another
//   models--ORG--NAME/trees/COMMIT.json    the file list
//   models--ORG--NAME/.no_exist/COMMIT/F   empty; F is known to be absent at that commit
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/snapshot.h"

namespace cake {

// "models--org--name"; a name without namespace gives "models--name".
std::string hf_folder(const RepoName& repo);
std::optional<RepoName> parse_hf_folder(std::string_view folder);

// A directory of the layout, taken apart.
struct HfPlace {
  enum class Kind { hub, repo, refs, blobs, snapshots, trees, no_exist, no_exist_commit };
  Kind kind = Kind::hub;
  RepoName repo;
  std::string commit;  // of no_exist_commit
  std::string rest;    // below refs or a commit of .no_exist: "refs/pr", "sub/dir"; else empty
};
// `path` is below the hub folder, "" for itself.  nullopt: no directory that is made of names.
std::optional<HfPlace> parse_hf_place(std::string_view path);

// The ETag that clients name a file's blob by.  A file whose hashes are masked gets one of its
// place: 40 digits that are no hash of its bytes.
std::string hf_blob_name(const RepoName& repo, const std::string& commit, const TreeEntry& entry);
// Text of the symbolic link in snapshots/COMMIT/ for the file with that ordinal.
std::string hf_link_target(const Snapshot& snapshot, uint32_t ordinal);
// trees/COMMIT.json, format version 1.
std::string hf_tree_json(const Snapshot& snapshot);

}  // namespace cake
