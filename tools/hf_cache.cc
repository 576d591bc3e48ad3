#include "tools/hf_cache.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "fs/hf_names.h"
#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

namespace files = std::filesystem;

// A listing of 2,000,000 files, as much as a hub's.
constexpr uint64_t kMaxTreeBytes = 512 * kMiB;
constexpr uint64_t kMaxRefBytes = 256;

Error list_error(const std::string& folder, const std::error_code& failure) {
  return {Errc::io, cat("listing ", folder, ": ", failure.message())};
}

bool is_inside(const files::path& path, const files::path& folder) {
  const auto [end, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

class RepoScan {
 public:
  RepoScan(files::path root, files::path folder, RepoName name)
      : root_(std::move(root)), folder_(std::move(folder)) {
    found_.repo = std::move(name);
  }

  Result<HfCachedRepo> run() {
    count_incomplete();
    std::error_code failure;
    for (auto entry = files::directory_iterator(folder_ / "snapshots", failure);
         !failure && entry != files::directory_iterator(); entry.increment(failure)) {
      const std::string commit = entry->path().filename().string();
      std::error_code other;
      if (is_commit(commit) && entry->is_directory(other))
        CAKE_TRY(scan_revision(commit, entry->path()));
    }
    if (failure && failure != std::errc::no_such_file_or_directory)
      return list_error(folder_.string(), failure);
    std::sort(found_.revisions.begin(), found_.revisions.end(),
              [](const auto& a, const auto& b) { return a.commit < b.commit; });
    CAKE_TRY(scan_refs());
    return std::move(found_);
  }

 private:
  void count_incomplete() {
    std::error_code failure;
    for (auto entry = files::directory_iterator(folder_ / "blobs", failure);
         !failure && entry != files::directory_iterator(); entry.increment(failure))
      if (entry->path().extension() == ".incomplete") found_.skipped++;
  }

  Status scan_revision(const std::string& commit, const files::path& folder) {
    HfCachedRevision revision{commit, {}, std::nullopt};
    std::error_code failure;
    for (auto entry = files::recursive_directory_iterator(folder, failure);
         !failure && entry != files::recursive_directory_iterator(); entry.increment(failure)) {
      std::error_code other;
      if (entry->is_directory(other) && !entry->is_symlink(other)) continue;
      const std::string path = entry->path().lexically_relative(folder).generic_string();
      const std::optional<HfCachedFile> file = find_file(entry->path(), path);
      if (file)
        revision.files.push_back(*file);
      else
        found_.skipped++;
    }
    if (failure) return list_error(folder.string(), failure);
    std::sort(revision.files.begin(), revision.files.end(),
              [](const HfCachedFile& a, const HfCachedFile& b) { return a.path < b.path; });
    const files::path tree = folder_ / "trees" / (commit + ".json");
    if (path_exists(tree.string())) {
      const Result<std::string> text = read_text_file(tree.string(), kMaxTreeBytes);
      Result<std::vector<TreeEntry>> entries =
          text ? parse_hf_tree(*text) : Result<std::vector<TreeEntry>>(text.error());
      // A list that does not parse is as good as none.
      if (entries)
        revision.tree = std::move(*entries);
      else
        found_.skipped++;
    }
    found_.revisions.push_back(std::move(revision));
    return {};
  }

  std::optional<HfCachedFile> find_file(const files::path& link, const std::string& path) const {
    std::error_code failure;
    const files::path where = files::canonical(link, failure);
    // Links lead to blobs of this repo, or to those that several repos of the cache share.
    if (failure || !is_inside(where, root_) || !is_valid_repo_path(path)) return std::nullopt;
    if (!files::is_regular_file(where, failure) || failure) return std::nullopt;
    HfCachedFile file{path, where.string(), files::file_size(where, failure), ""};
    if (failure) return std::nullopt;
    const std::string name = where.filename().string();
    if (files::is_symlink(link, failure) && (is_hex(name, 64) || is_hex(name, 40)))
      file.etag = name;
    return file;
  }

  Status scan_refs() {
    std::error_code failure;
    const files::path folder = folder_ / "refs";
    for (auto entry = files::recursive_directory_iterator(folder, failure);
         !failure && entry != files::recursive_directory_iterator(); entry.increment(failure)) {
      std::error_code other;
      if (!entry->is_regular_file(other)) continue;
      const std::string name = entry->path().lexically_relative(folder).generic_string();
      Result<std::string> text = read_text_file(entry->path().string(), kMaxRefBytes);
      if (!text) continue;
      while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
      if (is_commit(*text) && is_valid_revision(name))
        found_.refs.emplace_back(name, *text);
      else
        found_.skipped++;
    }
    if (failure && failure != std::errc::no_such_file_or_directory)
      return list_error(folder.string(), failure);
    std::sort(found_.refs.begin(), found_.refs.end());
    return {};
  }

  const files::path root_, folder_;
  HfCachedRepo found_;
};

}  // namespace

Result<std::vector<TreeEntry>> parse_hf_tree(std::string_view text) {
  const Error error{Errc::corrupt, "a file list of the cache does not parse"};
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("format_version", nlohmann::json()) != 1) return error;
  const auto files = json.find("files");
  if (files == json.end() || !files->is_object()) return error;
  const auto word = [](const nlohmann::json& from, const char* key) -> std::string {
    const auto found = from.find(key);
    return found != from.end() && found->is_string() ? found->get<std::string>() : "";
  };
  std::vector<TreeEntry> entries;
  for (const auto& [path, facts] : files->items()) {
    if (!facts.is_object()) return error;
    TreeEntry entry{path, 0, {}};
    const auto size = facts.find("size");
    if (size == facts.end() || !size->is_number_unsigned()) return error;
    entry.bytes = size->get<uint64_t>();
    const std::string oid = word(facts, "blob_id"), sha256 = word(facts, "lfs_sha256");
    const std::string xet = word(facts, "xet_hash");
    if (is_hex(oid, 40)) entry.ids.git_oid = oid;
    if (is_hex(sha256, 64)) entry.ids.sha256 = sha256;
    if (is_hex(xet, 64)) entry.ids.xet = xet;
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::optional<std::vector<HfCachedRepo>>> scan_hf_cache(const std::string& folder) {
  std::error_code failure;
  const files::path root = files::canonical(folder, failure);
  if (failure) return Error{Errc::not_found, cat(folder, ": ", failure.message())};
  std::vector<HfCachedRepo> repos;
  if (const auto name = parse_hf_folder(root.filename().string());
      name && path_exists((root / "snapshots").string())) {
    repos.push_back(CAKE_TRY(RepoScan(root.parent_path(), root, *name).run()));
    return std::optional(std::move(repos));
  }
  for (auto entry = files::directory_iterator(root, failure);
       !failure && entry != files::directory_iterator(); entry.increment(failure)) {
    const auto name = parse_hf_folder(entry->path().filename().string());
    if (name && path_exists((entry->path() / "snapshots").string()))
      repos.push_back(CAKE_TRY(RepoScan(root, entry->path(), *name).run()));
  }
  if (failure) return list_error(folder, failure);
  if (repos.empty()) return std::nullopt;
  std::sort(repos.begin(), repos.end(),
            [](const HfCachedRepo& a, const HfCachedRepo& b) { return a.repo < b.repo; });
  return std::optional(std::move(repos));
}

std::string default_hf_cache() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string folder = variable("HF_HUB_CACHE"); !folder.empty()) return folder;
  if (const std::string home = variable("HF_HOME"); !home.empty()) return home + "/hub";
  if (const std::string base = variable("XDG_CACHE_HOME"); !base.empty())
    return base + "/huggingface/hub";
  return variable("HOME") + "/.cache/huggingface/hub";
}

}  // namespace cake
