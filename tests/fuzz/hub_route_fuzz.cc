// The path of a request to a hub.
#include <cstdint>
#include <string_view>

#include "fetch/hub_route.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view path(reinterpret_cast<const char*>(data), size);
  for (const bool has_repo : {false, true}) {
    const cake::HubRoute route =
        cake::parse_hub_route(path, [&](const cake::RepoName&) { return has_repo; });
    CAKE_CHECK(route.path.find('\0') == std::string::npos && !route.path.ends_with('/'));
    CAKE_CHECK(route.revision.find('\0') == std::string::npos);
    CAKE_CHECK(route.path.size() <= size && route.repo.id.size() <= size);
  }
  return 0;
}
