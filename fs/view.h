// A way to lay names out: what a path below the mount leads to.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fetch/upstream.h"
#include "fs/node_id.h"
#include "store/base/clock.h"

namespace cake {

// What the kernel is told of a node.
struct NodeFacts {
  uint64_t node = 0;
  bool is_directory = false;
  uint64_t bytes = 0;
  int64_t mtime = 0;       // Unix seconds
  bool is_moving = false;  // the name may lead elsewhere later: finite timeout
  bool is_link = false;
};

struct ListedName {
  std::string name;
  uint64_t cookie = 0;  // what telldir gives for "after this one"; rising, stable for the name
  bool is_directory = false;
  uint64_t node = 0;  // 0: known when it is looked up
  uint64_t bytes = 0;
  int64_t mtime = 0;
  bool is_link = false;
};

// Sorted by cookie; cookies are above kFirstCookie.  Immutable.
struct Listing {
  std::vector<ListedName> names;
  bool is_moving = false;
};
using ListingPtr = std::shared_ptr<const Listing>;
// "." and ".." have the cookies below.
constexpr uint64_t kFirstCookie = 16;

// The listing of names that come and go: cookies are hashes of the names (as ext4's directories
// have them), so each stays what it is whatever appears around it.
ListingPtr moving_listing(std::vector<ListedName> names);
ListingPtr moving_listing(const std::vector<std::string>& directories);

// What a look-up of an absent name answers.
Error no_such(const std::string& name);

// What a made file says.
using TextPtr = std::shared_ptr<const std::string>;

// Thread-safe.  Answers that need the network come through `done` on another thread; the rest on
// the caller's, from memory or the index.
class View {
 public:
  virtual ~View() = default;

  // not_found is an answer that may be remembered; other errors are not.  stale: the directory's
  // number leads nowhere any more; the kernel then looks its name up again.
  virtual void look_up(uint64_t directory, const std::string& name, Deadline deadline,
                       Done<NodeFacts> done) = 0;
  virtual void list(uint64_t directory, Deadline deadline, Done<ListingPtr> done) = 0;
  // Never needs the network, but for the root of a single repo.
  virtual void find_facts(uint64_t node, Deadline deadline, Done<NodeFacts> done) = 0;
  // Name and value of a directory's attributes.
  virtual Result<std::vector<std::pair<std::string, std::string>>> directory_xattrs(
      uint64_t node) = 0;
  virtual Result<std::string> read_link(uint64_t node) = 0;
  // Of a made file.  `is_new`: a reader starts; else what the last one was given.
  virtual void read_text(uint64_t node, bool is_new, Done<TextPtr> done) = 0;
  // A file was opened.
  virtual void note_open(const ContentRow& content) = 0;
  // Whether an absent name in this directory may come to be (then it is remembered for neg_ttl).
  virtual bool is_moving(uint64_t directory) const = 0;
};

}  // namespace cake
