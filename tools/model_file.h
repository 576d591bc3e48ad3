// Files to look into: of a hub's repo, through the store, or of this machine.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/coverage.h"
#include "store/format/layout.h"
#include "tools/session.h"

namespace cake {

// Thread-compatible.
class ModelFile {
 public:
  // Of a snapshot; `session` outlives this.
  ModelFile(Session& session, const TreeEntry& entry, ContentRow content);
  // A plain file; `path` is how it is called.
  ModelFile(std::string path, std::shared_ptr<const File> file, uint64_t bytes);

  const std::string& path() const { return path_; }  // in the repo or folder
  uint64_t bytes() const { return bytes_; }
  // Nothing for a plain file.
  const std::optional<ContentRow>& content() const { return content_; }

  // What is not in the store is fetched, and stays there.
  Result<Buffer> read(ByteRange range) const;
  // Whether the store knows how it is cut; a file that was never read is not.
  Result<bool> is_cut() const;
  // How it is cut; fetches its head when need be.
  Result<Recipe> recipe() const;
  // What its header says; nullopt when it has none that we can read.
  Result<std::optional<Layout>> layout() const;
  // Calls `each` for every extent in order; digests and locations are those that the store knows.
  Status each_extent(const std::function<Status(const KnownExtent&)>& each) const;
  // The digest of an extent, from the store or from its bytes.
  Result<Digest> digest(const KnownExtent& extent) const;

 private:
  std::string path_;
  uint64_t bytes_;
  Session* session_ = nullptr;
  std::optional<ContentRow> content_;
  std::shared_ptr<const File> file_;
};

// Opens what words name, and a session when the first of them needs one.  Thread-compatible.
class ModelFiles {
 public:
  explicit ModelFiles(const Config& config) : config_(config) {}
  // Files of a reference (a repo, a folder, a file) or of a path (see is_local_path), in order.
  // not_found when there are none.
  Result<std::vector<ModelFile>> open(const std::string& word);
  Result<Session*> session();

 private:
  const Config& config_;
  std::unique_ptr<Session> session_;
};

// Scheme "cake-v0", so that equal tensors have equal hashes whatever file they are in:
//   extent  BLAKE3-256 of its plain bytes (man/cakefs-store.5, "Recipes")
//   tensor  BLAKE3-256 of "cake-v0 tensor\n", the dtype's name, "\n", the shape as decimal numbers
//           with commas, "\n", and the digests of its extents
//   file    BLAKE3-256 of "cake-v0 file\n", the length as a decimal number, "\n", and the digests
//           of all its extents
Digest tensor_hash(const Tensor& tensor, const std::vector<Digest>& extents);
Digest file_hash(uint64_t bytes, const std::vector<Digest>& extents);

// "4096x14336"; "scalar" for none.
std::string shape_text(const std::vector<uint64_t>& shape);
// Elements of a tensor; what overflows is UINT64_MAX.
uint64_t element_count(const std::vector<uint64_t>& shape);

}  // namespace cake
