// What a hub may send: the first byte chooses the parser.
#include <cstdint>
#include <string_view>

#include "fetch/hub_parse.h"

using namespace cake;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  HttpResponseHead head{404, {{"link", std::string(text)}}};
  switch (data[0] % 6) {
    case 0: {
      const auto info = parse_revision_info(text);
      if (info) CAKE_CHECK(is_hex(info->commit, 40));
      break;
    }
    case 1: {
      std::vector<TreeEntry> entries;
      (void)parse_tree_page(text, entries);
      for (const TreeEntry& entry : entries) CAKE_CHECK(!entry.path.empty());
      break;
    }
    case 2: {
      std::vector<std::string> ids;
      (void)parse_repo_page(text, ids);
      break;
    }
    case 3:
      (void)find_next_link(head);
      break;
    case 4: {
      const auto range = parse_content_range(text);
      if (range)
        CAKE_CHECK(range->range.length > 0 && range->range.end() > range->range.offset &&
                   range->range.end() <= range->total_bytes.value_or(UINT64_MAX));
      break;
    }
    default: {
      const HubFailure failure = parse_failure(head, text);
      CAKE_CHECK(failure.message.size() <= 300);
      if (const auto url = Url::parse(text))
        CAKE_CHECK(signed_url_life(*url, 0) <= Millis(3'600'000));
    }
  }
  return 0;
}
