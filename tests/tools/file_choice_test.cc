#include "tools/file_choice.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

Snapshot snapshot_of(const std::vector<std::string>& paths) {
  std::vector<TreeEntry> entries;
  std::vector<uint64_t> ids;
  for (const std::string& path : paths) {
    entries.push_back({path, 1, {}});
    ids.push_back(ids.size() + 1);
  }
  return Snapshot({RepoType::model, "org/name"}, std::string(40, 'a'), 0, entries, ids);
}

std::vector<std::string> chosen(const Snapshot& snapshot, const FileChoice& choice) {
  const Result<std::vector<uint32_t>> indices = choose_files(snapshot, choice);
  EXPECT_TRUE(indices);
  std::vector<std::string> paths;
  for (const uint32_t i : *indices) paths.push_back(snapshot.entries()[i].path);
  return paths;
}

using Paths = std::vector<std::string>;

TEST(FileChoice, SafetensorsReplaceOtherFormats) {
  const Snapshot snapshot =
      snapshot_of({"config.json", "model.safetensors", "onnx/model.onnx", "original/c.00.pth",
                   "pytorch_model.bin", "tf_model.h5", "tokenizer.bin"});
  EXPECT_EQ(chosen(snapshot, {}), (Paths{"config.json", "model.safetensors", "tokenizer.bin"}));
  EXPECT_EQ(chosen(snapshot, {.all_formats = true}).size(), 7u);
}

TEST(FileChoice, OnlyFormatIsTaken) {
  const Snapshot snapshot = snapshot_of({"config.json", "pytorch_model.bin"});
  EXPECT_EQ(chosen(snapshot, {}), (Paths{"config.json", "pytorch_model.bin"}));
}

TEST(FileChoice, FormatsOfOneFolderDoNotHideAnother) {
  const Snapshot snapshot =
      snapshot_of({"a/model.safetensors", "a/pytorch_model.bin", "b/pytorch_model.bin"});
  EXPECT_EQ(chosen(snapshot, {}), (Paths{"a/model.safetensors", "b/pytorch_model.bin"}));
}

TEST(FileChoice, OneCopyOfTheSameWeights) {
  const Snapshot mistral =
      snapshot_of({"consolidated.safetensors", "model-1-of-2.safetensors",
                   "model-2-of-2.safetensors", "model.safetensors.index.json"});
  EXPECT_EQ(chosen(mistral, {}), (Paths{"model-1-of-2.safetensors", "model-2-of-2.safetensors",
                                        "model.safetensors.index.json"}));
  EXPECT_EQ(chosen(snapshot_of({"consolidated.safetensors", "params.json"}), {}).size(), 2u);
  EXPECT_EQ(chosen(snapshot_of({"model.fp16.safetensors", "model.safetensors"}), {}),
            Paths{"model.safetensors"});
  EXPECT_EQ(chosen(snapshot_of({"model.Q4.gguf", "model.safetensors"}), {}),
            Paths{"model.safetensors"});
  // Without safetensors the next best; of files that hold different weights, all.
  EXPECT_EQ(chosen(snapshot_of({"flax_model.msgpack", "pytorch_model.bin", "tf_model.h5"}), {}),
            Paths{"pytorch_model.bin"});
  EXPECT_EQ(chosen(snapshot_of({"model.Q4.gguf", "model.Q8.gguf"}), {}).size(), 2u);
}

TEST(FileChoice, PipelinesReadTheFoldersOfTheirParts) {
  const Snapshot snapshot =
      snapshot_of({"model_index.json", "text/model.safetensors", "unet/pytorch_model.bin",
                   "v1-pruned.ckpt", "v1-pruned.safetensors"});
  EXPECT_EQ(chosen(snapshot, {}),
            (Paths{"model_index.json", "text/model.safetensors", "unet/pytorch_model.bin"}));
}

TEST(FileChoice, NamedFilesAreTakenWhateverTheirFormat) {
  const Snapshot snapshot = snapshot_of({"model.safetensors", "pytorch_model.bin", "x/y"});
  EXPECT_EQ(chosen(snapshot, {.files = {"pytorch_model.bin"}}), Paths{"pytorch_model.bin"});
  EXPECT_EQ(chosen(snapshot, {.include = {"*.bin"}}), Paths{"pytorch_model.bin"});
  EXPECT_EQ(chosen(snapshot, {.files = {"x"}}), Paths{"x/y"});
}

TEST(FileChoice, ExcludeWins) {
  const Snapshot snapshot = snapshot_of({"a.json", "b.json", "c/d.json"});
  EXPECT_EQ(chosen(snapshot, {.include = {"*.json"}, .exclude = {"b*", "c/"}}), Paths{"a.json"});
}

TEST(FileChoice, AbsentFileIsNamed) {
  const Result<std::vector<uint32_t>> indices =
      choose_files(snapshot_of({"a"}), {.files = {"a", "nope"}});
  ASSERT_FALSE(indices);
  EXPECT_EQ(indices.error().code, Errc::not_found);
  EXPECT_NE(indices.error().message.find("nope"), std::string::npos);
}

}  // namespace
}  // namespace cake
