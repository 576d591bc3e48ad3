#include "tools/export_plan.h"

#include <filesystem>
#include <set>

#include "fs/hf_names.h"
#include "tools/pull_plan.h"

namespace cake {
namespace {

Status add_file(ExportPlan& plan, const TreeEntry& entry, RowId content, std::string target) {
  if (CAKE_TRY(has_hub_bytes(target, entry)))
    plan.kept++;
  else
    plan.files.push_back({entry, content, std::move(target), {{0, entry.bytes}}});
  return {};
}

}  // namespace

Result<ExportPlan> plan_export(const Snapshot& snapshot, const std::vector<uint32_t>& entries,
                               const std::string& revision, const std::string& directory,
                               ExportLayout layout) {
  ExportPlan plan;
  if (layout == ExportLayout::flat) {
    plan.path = directory;
    for (const uint32_t i : entries) {
      const TreeEntry& entry = snapshot.entries()[i];
      CAKE_TRY(add_file(plan, entry, snapshot.content_id(i), cat(directory, "/", entry.path)));
    }
    return plan;
  }
  const std::string repo = cat(directory, "/", hf_folder(snapshot.repo()));
  plan.path = cat(repo, "/snapshots/", snapshot.commit());
  std::set<std::string> blobs;
  for (const uint32_t i : entries) {
    const TreeEntry& entry = snapshot.entries()[i];
    const std::string blob = hf_blob_name(snapshot.repo(), snapshot.commit(), entry);
    if (blobs.insert(blob).second)
      CAKE_TRY(add_file(plan, entry, snapshot.content_id(i), cat(repo, "/blobs/", blob)));
    const std::optional<uint32_t> node = snapshot.find_path(entry.path);
    CAKE_CHECK(node.has_value());
    plan.links.emplace_back(cat(plan.path, "/", entry.path), hf_link_target(snapshot, *node));
  }
  if (!revision.empty() && !is_commit(revision))
    plan.texts.emplace_back(cat(repo, "/refs/", revision), snapshot.commit());
  if (entries.size() == snapshot.entries().size())
    plan.texts.emplace_back(cat(repo, "/trees/", snapshot.commit(), ".json"),
                            hf_tree_json(snapshot));
  return plan;
}

Status finish_export(const ExportPlan& plan) {
  for (const auto& [path, text] : plan.links) {
    CAKE_TRY(make_directories(std::filesystem::path(path).parent_path().string()));
    CAKE_TRY(remove_file(path));
    std::error_code failure;
    std::filesystem::create_symlink(text, path, failure);
    if (failure) return errno_error(failure.value(), cat("linking ", path));
  }
  for (const auto& [path, text] : plan.texts) {
    CAKE_TRY(make_directories(std::filesystem::path(path).parent_path().string()));
    CAKE_TRY(write_file_atomically(path, as_bytes(text)));
  }
  return {};
}

}  // namespace cake
