// A URL and, after a line break, a reference to resolve against it.
#include <cstdint>
#include <string_view>

#include "fetch/url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  const auto base = cake::Url::parse(text.substr(0, line));
  if (!base) return 0;
  // What we print we read back as the same place: servers and we see one URL.
  const auto again = cake::Url::parse(base->str());
  CAKE_CHECK(again || base->str().size() > 16384);
  if (again) CAKE_CHECK(again->str() == base->str() && again->same_origin(*base));
  (void)base->find_query("Expires");
  if (line == std::string_view::npos) return 0;
  const auto next = base->resolve(text.substr(line + 1));
  if (next) CAKE_CHECK(next->path.starts_with('/') && !next->host.empty());
  return 0;
}
