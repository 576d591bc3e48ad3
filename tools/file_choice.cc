#include "tools/file_choice.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "store/glob.h"

namespace cake {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

bool is_one_of(const std::string& name, std::initializer_list<const char*> patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const char* pattern) { return fnmatch(pattern, name.c_str(), 0) == 0; });
}

// What a file holds, by its name.
enum class Kind {
  other,        // no weights
  safetensors,  // what loaders take first
  variant,      // NAME.fp16.safetensors and the like: loaders take it when told to
  whole,        // consolidated.safetensors: the same weights, for another loader
  torch,        // what loaders take where there is no safetensors
  foreign,      // what other programs take
};

Kind kind_of(const std::string& path) {
  const std::string name = name_of(path);
  if (is_one_of(name, {"consolidated*.safetensors"})) return Kind::whole;
  if (is_one_of(name, {"*.fp16.safetensors", "*.fp16-*.safetensors", "*.bf16.safetensors",
                       "*.non_ema.safetensors", "*.ema.safetensors"}))
    return Kind::variant;
  if (is_one_of(name, {"*.safetensors", "*.safetensors.index.json"})) return Kind::safetensors;
  if (is_one_of(name, {"pytorch_model*.bin", "diffusion_pytorch_model*.bin",
                       "pytorch_model*.bin.index.json", "adapter_model.bin"}))
    return Kind::torch;
  if (is_one_of(name, {"*.pth", "*.pt", "*.ckpt", "*.msgpack", "*.h5", "*.ot", "*.onnx",
                       "*.onnx_data", "*.tflite", "*.gguf", "*.mlmodel", "*.mlpackage", "*.nemo",
                       "flax_model*.msgpack.index.json"}))
    return Kind::foreign;
  return Kind::other;
}

// What weights each folder has.
struct Weights {
  std::set<std::string> safetensors, torch;  // folders

  explicit Weights(const std::vector<TreeEntry>& entries) {
    for (const TreeEntry& entry : entries) {
      const Kind kind = kind_of(entry.path);
      // An index without its shards is none.
      if (entry.path.ends_with(".index.json")) continue;
      if (kind == Kind::safetensors) safetensors.insert(folder_of(entry.path));
      if (kind == Kind::torch) torch.insert(folder_of(entry.path));
      // A pipeline (diffusers) reads what is in the folders of its parts.
      if (entry.path == "model_index.json") is_pipeline = true;
    }
  }

  // The same weights are there in what a loader prefers.
  bool is_superfluous(const std::string& path) const {
    const std::string folder = folder_of(path);
    const Kind kind = kind_of(path);
    const bool has_better = safetensors.contains(folder);
    if (is_pipeline && folder.empty() && kind != Kind::other && has_parts()) return true;
    switch (kind) {
      case Kind::other:
      case Kind::safetensors:
        return false;
      case Kind::variant:
      case Kind::whole:
      case Kind::torch:
        return has_better;
      case Kind::foreign:
        // A repo with weights at the top keeps other formats in folders of their own (onnx/,
        // original/).
        return has_better || torch.contains(folder) || safetensors.contains("") ||
               torch.contains("") || (is_pipeline && has_parts());
    }
    return false;
  }

 private:
  bool has_parts() const {
    const auto is_part = [](const std::string& folder) { return !folder.empty(); };
    return std::any_of(safetensors.begin(), safetensors.end(), is_part) ||
           std::any_of(torch.begin(), torch.end(), is_part);
  }

  bool is_pipeline = false;
};

bool is_below(const std::string& path, const std::string& folder) {
  return path.starts_with(folder.ends_with('/') ? folder : folder + "/");
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_glob(pattern, path); });
}

}  // namespace

Result<std::vector<uint32_t>> choose_files(const Snapshot& snapshot, const FileChoice& choice) {
  const std::vector<TreeEntry>& entries = snapshot.entries();
  const Weights weights(entries);
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
    if (!is_asked_for && !choice.all_formats && weights.is_superfluous(path)) continue;
    chosen.push_back(i);
  }
  for (size_t j = 0; j < choice.files.size(); j++)
    if (!is_named[j])
      return Error{Errc::not_found,
                   snapshot.repo().id + "@" + snapshot.commit() + " has no " + choice.files[j]};
  return chosen;
}

}  // namespace cake
