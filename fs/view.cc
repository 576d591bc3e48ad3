#include "fs/view.h"

#include <algorithm>
#include <tuple>

#include "store/base/digest.h"

namespace cake {

Error no_such(const std::string& name) {
  return {Errc::not_found, cat(name, ": no such file or directory")};
}

ListingPtr moving_listing(std::vector<ListedName> names) {
  auto listing = std::make_shared<Listing>();
  listing->is_moving = true;
  listing->names = std::move(names);
  for (ListedName& name : listing->names)
    name.cookie = (xxh3(as_bytes(name.name)) >> 2) + kFirstCookie + 1;
  std::sort(listing->names.begin(), listing->names.end(),
            [](const ListedName& a, const ListedName& b) {
              return std::tie(a.cookie, a.name) < std::tie(b.cookie, b.name);
            });
  for (size_t i = 1; i < listing->names.size(); i++)
    listing->names[i].cookie = std::max(listing->names[i].cookie, listing->names[i - 1].cookie + 1);
  return listing;
}

ListingPtr moving_listing(const std::vector<std::string>& directories) {
  std::vector<ListedName> names;
  for (const std::string& directory : directories) {
    ListedName& name = names.emplace_back();
    name.name = directory;
    name.is_directory = true;
  }
  return moving_listing(std::move(names));
}

}  // namespace cake
