// A path below /.hf/hub.
#include <cstdint>
#include <string_view>

#include "fs/hf_names.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view path(reinterpret_cast<const char*>(data), size);
  if (const auto repo = cake::parse_hf_folder(path)) {
    CAKE_CHECK(cake::is_valid_repo_id(repo->id));
    CAKE_CHECK(cake::hf_folder(*repo) == path);
  }
  if (const auto place = cake::parse_hf_place(path))
    CAKE_CHECK(place->commit.empty() || cake::is_commit(place->commit));
  return 0;
}
