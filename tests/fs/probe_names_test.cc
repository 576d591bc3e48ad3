#include "fs/probe_names.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(ProbeNames, KnowsWhatProgramsLookFor) {
  for (const char* name : {"HEAD", "autorun.inf", "package.json", "config.json", "glibc-hwcaps"}) {
    EXPECT_TRUE(is_probed_as_author(name)) << name;
    EXPECT_TRUE(is_probed_as_repo(name)) << name;
  }
  EXPECT_TRUE(is_probed_as_author("libcuda.so.1"));
  EXPECT_TRUE(is_probed_as_author("anything.json"));
}

TEST(ProbeNames, LetsAuthorsAndReposThrough) {
  for (const char* name : {"meta-llama", "01-ai", "Qwen", "h2o.ai", "json", "so", "bin"})
    EXPECT_FALSE(is_probed_as_author(name)) << name;
  for (const char* name : {"Qwen2.5-7B", "model.onnx", "whisper.cpp", "tiny-model.gguf", "Yi-1.5"})
    EXPECT_FALSE(is_probed_as_repo(name)) << name;
}

}  // namespace
}  // namespace cake
