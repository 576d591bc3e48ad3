// A repo at one commit: an immutable, sorted list of files.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cake {

// On disk: values are fixed.
enum class RepoType : uint8_t { model = 0, dataset = 1, space = 2 };

std::string_view repo_type_plural(RepoType type);    // "models", "datasets", "spaces"
std::string_view repo_type_singular(RepoType type);  // "model", "dataset", "space"

// "ORG/NAME", or a name without namespace (legacy repos).
struct RepoName {
  RepoType type = RepoType::model;
  std::string id;
  auto operator<=>(const RepoName&) const = default;  // NOLINT(modernize-use-nullptr)
};

// Whether a hub can have such a repo, or such a part of a repo's id (spec of hub names: 1 to 96
// characters of A-Z a-z 0-9 . _ -, no "--", no "..", no leading or trailing "-" or ".", not ending
// in ".git").  What fails here never causes a request.
bool is_valid_repo_id(std::string_view id);
bool is_valid_repo_part(std::string_view part);
// 40 hexadecimal digits, lower case.
bool is_commit(std::string_view revision);
// Not empty, no control characters, no "..", at most 255 bytes.
bool is_valid_revision(std::string_view revision);
// Relative, no empty, "." or ".." segment, no NUL, at most 4,096 bytes.  A segment may be longer
// than the kernel's 255: such a file exists but has no name in the mount.
bool is_valid_repo_path(std::string_view path);

// The hashes an upstream gives a file.  Empty when it does not say, or masks it.
struct FileIds {
  std::string git_oid;  // 40 hex; for LFS files the oid of the pointer
  std::string sha256;   // 64 hex; LFS and Xet files
  std::string xet;      // 64 hex
  bool operator==(const FileIds&) const = default;
};

// A file as the hub lists it.
struct TreeEntry {
  std::string path;  // UTF-8 by custom; any bytes but NUL
  uint64_t bytes = 0;
  FileIds ids;
  bool operator==(const TreeEntry&) const = default;
};

// What a content is known by: (source, kind, id).  A masked file's identity is its place.
// On disk: values are fixed.
enum class ContentKind : uint8_t { sha256 = 1, git_blob = 2, place = 3, xet = 4 };
struct ContentKey {
  ContentKind kind = ContentKind::place;
  std::string id;  // hex, or "TYPE/ORG/NAME@COMMIT/PATH"
};
ContentKey content_key(const RepoName& repo, const std::string& commit, const TreeEntry& entry);

// A file or directory of a snapshot.  Directories are computed from the paths; ordinal 0 is the
// root.  Ordinals are positions in the sorted tree and mean the same in every process.
struct Node {
  std::string_view name;  // last segment; empty for the root
  uint32_t parent = 0;    // ordinal
  bool is_directory = false;
  uint32_t entry = 0;                         // files: index in entries()
  uint32_t first_child = 0, child_count = 0;  // directories: children are adjacent ordinals
};

// Ordinals are 32 bits, and a node takes 20 times the 2 bytes that a hostile path spends on one.
constexpr size_t kMaxNodes = size_t{1} << 26;

// What ext4 can hold in a file; hubs take less than a TiB.  A length made up by a hub, or by a
// flipped bit, would have us look for extents until the end of days.
constexpr uint64_t kMaxContentBytes = uint64_t{1} << 44;

// Immutable, so thread-safe; shared by everyone who looks at the commit.
class Snapshot {
 public:
  // Sorts; drops invalid paths, duplicates (the first stays), files that are also directories or
  // longer than kMaxContentBytes, and what would make more than kMaxNodes, counting them in
  // dropped(). `content_ids[i]` belongs to the i-th entry of `entries` (row ids of the index).
  Snapshot(RepoName repo, std::string commit, int64_t date, std::vector<TreeEntry> entries,
           std::vector<uint64_t> content_ids);
  // Nodes view the names in entries(): moving keeps those in place, copying would not.
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  Snapshot(Snapshot&&) = default;
  Snapshot& operator=(Snapshot&&) = default;

  const RepoName& repo() const { return repo_; }
  const std::string& commit() const { return commit_; }
  int64_t date() const { return date_; }  // Unix seconds
  // Sorted by path, bytewise.
  const std::vector<TreeEntry>& entries() const { return entries_; }
  uint64_t content_id(uint32_t entry) const { return content_ids_[entry]; }
  const std::vector<Node>& nodes() const { return nodes_; }
  size_t dropped() const { return dropped_; }
  // Those that were dropped before it was made from what was left.
  void add_dropped(size_t entries) { dropped_ += entries; }

  // Ordinal of a child, of a path ("a/b", "" = root).
  std::optional<uint32_t> find_child(uint32_t directory, std::string_view name) const;
  std::optional<uint32_t> find_path(std::string_view path) const;
  // Index in entries().
  std::optional<uint32_t> find_entry(std::string_view path) const;

  // The entries as stored in the index and in packs (man/cakefs-store.5), in the order given;
  // decode is total on hostile bytes, and what it makes is at most some 70 times their length.
  // Errors: corrupt.
  static Buffer encode_entries(const std::vector<TreeEntry>& entries);
  static Result<std::vector<TreeEntry>> decode_entries(ByteSpan bytes);

 private:
  RepoName repo_;
  std::string commit_;
  int64_t date_ = 0;
  std::vector<TreeEntry> entries_;
  std::vector<uint64_t> content_ids_;
  std::vector<Node> nodes_;  // breadth first, so that children are adjacent
  size_t dropped_ = 0;
};

}  // namespace cake
