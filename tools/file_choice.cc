#include "tools/file_choice.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>

namespace cake {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// Weights in a format that other programs write beside safetensors.
bool is_other_weights(const std::string& path) {
  const std::string name = name_of(path);
  for (const char* pattern : {"pytorch_model*.bin", "diffusion_pytorch_model*.bin",
                              "pytorch_model*.bin.index.json", "*.pth", "*.pt", "*.ckpt",
                              "*.msgpack", "*.h5", "*.ot", "*.onnx", "*.onnx_data", "*.tflite"})
    if (fnmatch(pattern, name.c_str(), 0) == 0) return true;
  return false;
}

bool is_below(const std::string& path, const std::string& folder) {
  return path.starts_with(folder.ends_with('/') ? folder : folder + "/");
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_glob(pattern, path); });
}

}  // namespace

bool matches_glob(const std::string& pattern, const std::string& path) {
  if (fnmatch(pattern.c_str(), path.c_str(), 0) == 0) return true;
  // "folder/" means all below it.
  if (pattern.ends_with('/')) return fnmatch((pattern + "*").c_str(), path.c_str(), 0) == 0;
  return pattern.find('/') == std::string::npos &&
         fnmatch(pattern.c_str(), name_of(path).c_str(), 0) == 0;
}

Result<std::vector<uint32_t>> choose_files(const Snapshot& snapshot, const FileChoice& choice) {
  const std::vector<TreeEntry>& entries = snapshot.entries();
  std::set<std::string> folders_with_safetensors;
  for (const TreeEntry& entry : entries)
    if (entry.path.ends_with(".safetensors"))
      folders_with_safetensors.insert(folder_of(entry.path));
  // A repo with safetensors at the top keeps its other formats in folders of their own (onnx/,
  // original/).
  const bool root_has = folders_with_safetensors.contains("");

  std::vector<bool> is_named(choice.files.size());
  std::vector<uint32_t> chosen;
  for (uint32_t i = 0; i < entries.size(); i++) {
    const std::string& path = entries[i].path;
    bool is_asked_for = false;
    bool has_name = choice.files.empty();
    for (size_t j = 0; j < choice.files.size(); j++) {
      if (path != choice.files[j] && !is_below(path, choice.files[j])) continue;
      is_named[j] = has_name = true;
      is_asked_for = is_asked_for || path == choice.files[j];
    }
    if (!has_name || matches_any(choice.exclude, path)) continue;
    if (!choice.include.empty()) {
      if (!matches_any(choice.include, path)) continue;
      is_asked_for = true;
    }
    const bool is_duplicate =
        (root_has || folders_with_safetensors.contains(folder_of(path))) && is_other_weights(path);
    if (is_duplicate && !is_asked_for && !choice.all_formats) continue;
    chosen.push_back(i);
  }
  for (size_t j = 0; j < choice.files.size(); j++)
    if (!is_named[j])
      return Error{Errc::not_found,
                   snapshot.repo().id + "@" + snapshot.commit() + " has no " + choice.files[j]};
  return chosen;
}

}  // namespace cake
