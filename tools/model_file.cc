#include "tools/model_file.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "fetch/proof.h"
#include "store/base/digest.h"
#include "store/format/safetensors.h"

namespace cake {
namespace {

// Of a plain file: as a hub's file of that name would be.
Result<std::pair<Cut, Buffer>> cut_plain(const ModelFile& file) {
  const Cutter wanted = wanted_cutter(file.path());
  Buffer head;
  while (true) {
    const uint64_t needed = head_bytes_needed(wanted, head, file.bytes());
    if (needed <= head.size()) break;
    head = CAKE_TRY(file.read({0, needed}));
    if (head.size() < needed) break;
  }
  Cut cut = cut_file(wanted, head, file.bytes());
  return std::pair(std::move(cut), std::move(head));
}

Buffer hash_input(const std::string& front, const std::vector<Digest>& extents) {
  Buffer input = to_buffer(as_bytes(front));
  for (const Digest& digest : extents)
    input.insert(input.end(), digest.bytes.begin(), digest.bytes.end());
  return input;
}

Result<ModelFile> open_plain(const std::string& path, std::string name) {
  std::error_code failure;
  const std::filesystem::file_status status = std::filesystem::status(path, failure);
  // Before it is opened: a pipe waits for its writer.  What cannot be looked at, the open says.
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return Error{Errc::invalid, cat(path, " is not a regular file")};
  Result<File> opened = File::open(path, File::Mode::read);
  // What is absent is named wrongly, here as at a hub; what may not be read has nothing to do with
  // one.
  if (!opened && opened.error().code == Errc::denied) return local_error(opened.error());
  auto file = std::make_shared<File>(CAKE_TRY(std::move(opened)));
  const uint64_t bytes = CAKE_TRY(file->size());
  // The length is part of every answer, and the files of /proc and /sys do not tell theirs.
  std::array<std::byte, 1> first{};
  if (bytes == 0 && CAKE_TRY(file->read_at(0, first)) > 0)
    return Error{Errc::invalid, cat(path, " is not a regular file: it does not tell its length")};
  return ModelFile(std::move(name), std::move(file), bytes);
}

Result<std::vector<ModelFile>> open_folder(const std::string& word) {
  std::vector<std::string> names;
  std::error_code failure;
  for (auto entry = std::filesystem::recursive_directory_iterator(word, failure);
       !failure && entry != std::filesystem::recursive_directory_iterator();
       entry.increment(failure)) {
    std::error_code not_followed;  // a link in a loop is no file
    if (entry->is_regular_file(not_followed))
      names.push_back(entry->path().lexically_relative(word).generic_string());
  }
  if (failure) return Error{Errc::io, cat("listing ", word, ": ", failure.message())};
  std::sort(names.begin(), names.end());
  std::vector<ModelFile> files;
  files.reserve(names.size());
  for (std::string& name : names)
    files.push_back(CAKE_TRY(open_plain((std::filesystem::path(word) / name).string(), name)));
  if (files.empty()) return Error{Errc::not_found, cat("no file is below ", word)};
  return files;
}

}  // namespace

ModelFile::ModelFile(Session& session, const TreeEntry& entry, ContentRow content)
    : path_(entry.path), bytes_(content.bytes), session_(&session), content_(std::move(content)) {}

ModelFile::ModelFile(std::string path, std::shared_ptr<const File> file, uint64_t bytes)
    : path_(std::move(path)), bytes_(bytes), file_(std::move(file)) {}

Result<Buffer> ModelFile::read(ByteRange range) const {
  range.length = std::min(range.length, bytes_ - std::min(bytes_, range.offset));
  Buffer bytes;
  if (file_) {
    bytes.resize(range.length);
    bytes.resize(CAKE_TRY(file_->read_at(range.offset, bytes)));
    return bytes;
  }
  const auto reader = CAKE_TRY(session_->client().open(content_->id));
  const FileReader::Slices slices =
      CAKE_TRY(wait_for<FileReader::Slices>([&](Done<FileReader::Slices> done) {
        ReadOptions options;
        options.drives_readahead = false;
        reader->read(range.offset, range.length, options, std::move(done));
      }));
  bytes.reserve(range.length);
  for (const ChunkSlice& slice : slices)
    bytes.insert(bytes.end(), slice.bytes().begin(), slice.bytes().end());
  return bytes;
}

Result<bool> ModelFile::is_cut() const {
  if (!content_) return true;
  return CAKE_TRY(session_->store().index().find_recipe(content_->id)).has_value();
}

Result<Recipe> ModelFile::recipe() const {
  if (!content_ || bytes_ == 0) {
    const auto [cut, head] = CAKE_TRY(cut_plain(*this));
    return Recipe{cut.cutter, cut.extents};
  }
  std::optional<Recipe> known = CAKE_TRY(load_recipe(session_->store().index(), *content_));
  if (known) return std::move(*known);
  // The first read of a file cuts it.
  CAKE_TRY(read({0, 1}));
  known = CAKE_TRY(load_recipe(session_->store().index(), *content_));
  if (!known) return Error{Errc::io, cat("the cut of ", path_, " was not recorded")};
  return std::move(*known);
}

Result<std::optional<Layout>> ModelFile::layout() const {
  if (!content_) {
    const auto [cut, head] = CAKE_TRY(cut_plain(*this));
    if (cut.cutter != Cutter::safetensors) return std::nullopt;
    return CAKE_TRY(parse_safetensors(head, bytes_));
  }
  if (wanted_cutter(path_) != Cutter::safetensors) return std::nullopt;
  const Recipe known = CAKE_TRY(recipe());
  if (known.cutter != Cutter::safetensors) return std::nullopt;
  const std::optional<RecipeRow> row =
      CAKE_TRY(session_->store().index().find_recipe(content_->id));
  if (!row) return std::nullopt;
  return CAKE_TRY(parse_safetensors(row->head, bytes_));
}

Status ModelFile::each_extent(const std::function<Status(const KnownExtent&)>& each) const {
  if (bytes_ == 0) return {};
  const Recipe known = CAKE_TRY(recipe());
  if (content_) return cake::each_extent(session_->store().index(), *content_, known, each);
  for (uint64_t i = 0; i < known.extents.count(); i++)
    CAKE_TRY(each({i, known.extents.at(i), {}, std::nullopt}));
  return {};
}

Result<Digest> ModelFile::digest(const KnownExtent& extent) const {
  if (!extent.digest.is_zero()) return extent.digest;
  const Buffer bytes = CAKE_TRY(read({extent.extent.offset, extent.extent.length}));
  if (bytes.size() != extent.extent.length)
    return Error{Errc::corrupt, cat(path_, " ends at ", extent.extent.offset + bytes.size())};
  return blake3(bytes);
}

Result<Session*> ModelFiles::session() {
  if (!session_) session_ = CAKE_TRY(Session::open(config_));
  return session_.get();
}

Result<std::vector<ModelFile>> ModelFiles::open(const std::string& word) {
  if (is_local_path(word)) {
    std::error_code failure;
    if (std::filesystem::is_directory(word, failure)) return open_folder(word);
    std::vector<ModelFile> files;
    files.push_back(CAKE_TRY(open_plain(word, std::filesystem::path(word).filename().string())));
    return files;
  }
  const Reference reference = CAKE_TRY(parse_reference(word));
  Session& opened = *CAKE_TRY(session());
  const auto snapshot = CAKE_TRY(opened.find_snapshot(reference, false));
  std::vector<ModelFile> files;
  for (const uint32_t i : CAKE_TRY(entries_below(*snapshot, reference.path))) {
    std::optional<ContentRow> content =
        CAKE_TRY(opened.store().index().find_content(snapshot->content_id(i)));
    if (!content) return Error{Errc::corrupt, cat("index: no content for ", reference.text())};
    files.emplace_back(opened, snapshot->entries()[i], std::move(*content));
  }
  if (files.empty()) return Error{Errc::not_found, cat(reference.text(), " has no files")};
  return files;
}

Digest tensor_hash(const Tensor& tensor, const std::vector<Digest>& extents) {
  std::string shape;
  for (const uint64_t length : tensor.shape) shape += cat(shape.empty() ? "" : ",", length);
  return blake3(hash_input(cat("cake-v0 tensor\n", tensor.dtype_name, "\n", shape, "\n"), extents));
}

Digest file_hash(uint64_t bytes, const std::vector<Digest>& extents) {
  return blake3(hash_input(cat("cake-v0 file\n", bytes, "\n"), extents));
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (const uint64_t length : shape) text += cat(text.empty() ? "" : "x", length);
  return text;
}

uint64_t element_count(const std::vector<uint64_t>& shape) {
  uint64_t count = 1;
  for (const uint64_t length : shape) count = checked_mul(count, length).value_or(UINT64_MAX);
  return count;
}

}  // namespace cake
