// Hostile stored entries: never a crash; what decodes encodes to the same, and makes a tree.
#include "store/snapshot.h"

using namespace cake;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan input(reinterpret_cast<const std::byte*>(data), size);
  auto entries = Snapshot::decode_entries(input);
  if (!entries) {
    CAKE_CHECK(entries.error().code == Errc::corrupt);
    return 0;
  }
  const auto again = Snapshot::decode_entries(Snapshot::encode_entries(*entries));
  CAKE_CHECK(again && *again == *entries);
  const size_t count = entries->size();
  const Snapshot snapshot(RepoName{}, "", 0, std::move(*entries), std::vector<uint64_t>(count));
  CAKE_CHECK(snapshot.entries().size() + snapshot.dropped() == count);
  for (uint32_t i = 1; i < snapshot.nodes().size(); i++) {
    const Node& node = snapshot.nodes()[i];
    CAKE_CHECK(snapshot.find_child(node.parent, node.name) == i);
  }
  for (const TreeEntry& entry : snapshot.entries()) CAKE_CHECK(snapshot.find_path(entry.path));
  return 0;
}
