// What the parts of Materializer share: materialize.cc (in), materialize_out.cc, and
// materialize_recover.cc.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/materialize.h"
#include "store/recipe.h"

namespace cake {

inline constexpr std::string_view kRawSuffix = ".raw";
inline constexpr std::string_view kRawPartSuffix = ".raw.tmp";
// Rows moved and copies punched together: what a crash between the two loses on the disk.
inline constexpr size_t kMovePortion = 32;

std::string raw_file_name(const ContentRow& content);

// One materialization a store at a time: they are all disk, and what is found half done while
// holding it was left by a dead process.  nullopt: somebody is at it.
Result<std::optional<File>> take_turn(const Store& store);

// What a content consists of, and where that lies now.
struct Materializer::Plan {
  ContentRow content;
  Extents extents;
  std::vector<Digest> digests;                     // zero: not known
  std::vector<std::optional<Location>> locations;  // nullopt: not here

  bool is_complete() const {
    return std::all_of(locations.begin(), locations.end(),
                       [](const auto& location) { return location.has_value(); });
  }
  // Of what lies in this pack.
  std::vector<Digest> digests_in(uint32_t pack) const {
    std::vector<Digest> there;
    for (size_t i = 0; i < digests.size(); i++)
      if (locations[i] && locations[i]->pack == pack) there.push_back(digests[i]);
    return there;
  }
  bool has_all_digests() const {
    return std::none_of(digests.begin(), digests.end(),
                        [](const Digest& digest) { return digest.is_zero(); });
  }
};

// A materialized file that nobody else uses, while this lives.
struct Materializer::Held {
  MaterializedRow row;
  File file;  // locked exclusively
};

}  // namespace cake
