#include "store/snapshot.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace cake {

namespace {

constexpr size_t kMaxRepoName = 96;
constexpr size_t kMaxRevision = 255;
constexpr size_t kMaxPath = 4096;

bool is_digit(char letter) {
  return letter >= '0' && letter <= '9';
}

bool is_name_letter(char letter) {
  return is_digit(letter) || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
         letter == '.' || letter == '_' || letter == '-';
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string lower_hex(std::string text) {
  for (char& letter : text)
    if (letter >= 'A' && letter <= 'F') letter = static_cast<char>(letter - 'A' + 'a');
  return text;
}

// Indices of the entries to keep, sorted by path, each path valid and once, each length possible.
std::vector<uint32_t> sorted_unique(const std::vector<TreeEntry>& entries) {
  std::vector<uint32_t> order;
  order.reserve(entries.size());
  for (uint32_t i = 0; i < entries.size(); i++)
    if (is_valid_repo_path(entries[i].path) && entries[i].bytes <= kMaxContentBytes)
      order.push_back(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const int compared = entries[a].path.compare(entries[b].path);
    return compared != 0 ? compared < 0 : a < b;
  });
  order.erase(
      std::unique(order.begin(), order.end(),
                  [&](uint32_t a, uint32_t b) { return entries[a].path == entries[b].path; }),
      order.end());
  return order;
}

// Takes out the files that are directories too, and those that would make too many nodes.
// Neighbours in `order` share their directories, so each directory is met once.
void drop_conflicts(const std::vector<TreeEntry>& entries, std::vector<uint32_t>& order) {
  std::vector<bool> is_dropped(order.size());
  const auto path_less = [&](uint32_t index, std::string_view path) {
    return entries[index].path < path;
  };
  size_t nodes = 1;
  std::string_view previous;
  for (size_t i = 0; i < order.size(); i++) {
    const std::string_view path = entries[order[i]].path;
    const size_t first_new = shared_prefix(previous, path);
    std::vector<size_t> slashes;
    for (size_t at = path.find('/', first_new); at != std::string_view::npos;
         at = path.find('/', at + 1))
      slashes.push_back(at);
    if (nodes + slashes.size() + 1 > kMaxNodes) {
      is_dropped[i] = true;
      continue;
    }
    nodes += slashes.size() + 1;
    previous = path;
    for (const size_t slash : slashes) {
      const std::string_view directory = path.substr(0, slash);
      const auto found = std::lower_bound(order.begin(), order.end(), directory, path_less);
      if (found != order.end() && entries[*found].path == directory)
        is_dropped[static_cast<size_t>(found - order.begin())] = true;
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < order.size(); i++)
    if (!is_dropped[i]) order[kept++] = order[i];
  order.resize(kept);
}

template <typename T>
std::vector<T> take(std::vector<T>& from, const std::vector<uint32_t>& order) {
  std::vector<T> taken;
  taken.reserve(order.size());
  for (const uint32_t index : order) taken.push_back(std::move(from[index]));
  return taken;
}

// Makes the nodes, breadth first, from entries sorted by path.
class TreeBuilder {
 public:
  explicit TreeBuilder(const std::vector<TreeEntry>& entries) : entries_(entries) {}

  std::vector<Node> build() {
    nodes_.push_back({.is_directory = true});
    runs_.push_back({0, static_cast<uint32_t>(entries_.size()), 0});
    // The nodes are their own queue.
    for (uint32_t ordinal = 0; ordinal < nodes_.size(); ordinal++)
      if (nodes_[ordinal].is_directory) add_children(ordinal);
    nodes_.shrink_to_fit();
    return std::move(nodes_);
  }

 private:
  // The entries below a directory, whose path with its slash has `prefix` bytes.
  struct Run {
    uint32_t begin, end, prefix;
  };
  struct Child {
    std::string_view name;
    bool is_directory;
    Run run;
  };

  // The child that begins at entry `first` of the parent's run.
  Child next_child(const Run& parent, uint32_t first) const {
    const std::string_view path = entries_[first].path;
    const size_t slash = path.find('/', parent.prefix);
    if (slash == std::string_view::npos)
      return {path.substr(parent.prefix), false, {first, first + 1, 0}};
    const auto prefix = static_cast<uint32_t>(slash + 1);
    const std::string_view below = path.substr(parent.prefix, prefix - parent.prefix);
    uint32_t end = first + 1;
    while (end < parent.end &&
           std::string_view(entries_[end].path).substr(parent.prefix).starts_with(below))
      end++;
    return {below.substr(0, below.size() - 1), true, {first, end, prefix}};
  }

  void add_children(uint32_t ordinal) {
    const Run parent = runs_[ordinal];
    children_.clear();
    for (uint32_t first = parent.begin; first < parent.end; first = children_.back().run.end)
      children_.push_back(next_child(parent, first));
    // Entries are sorted by whole path: "a-b" before "a/c", but as names "a" before "a-b".
    std::sort(children_.begin(), children_.end(),
              [](const Child& a, const Child& b) { return a.name < b.name; });
    nodes_[ordinal].first_child = static_cast<uint32_t>(nodes_.size());
    nodes_[ordinal].child_count = static_cast<uint32_t>(children_.size());
    for (const Child& child : children_) {
      nodes_.push_back({.name = child.name,
                        .parent = ordinal,
                        .is_directory = child.is_directory,
                        .entry = child.is_directory ? 0 : child.run.begin});
      runs_.push_back(child.run);
    }
  }

  const std::vector<TreeEntry>& entries_;
  std::vector<Node> nodes_;
  std::vector<Run> runs_;  // of each node
  std::vector<Child> children_;
};

}  // namespace

std::string_view repo_type_plural(RepoType type) {
  switch (type) {
    case RepoType::model:
      return "models";
    case RepoType::dataset:
      return "datasets";
    case RepoType::space:
      return "spaces";
  }
  return "unknown";
}

std::string_view repo_type_singular(RepoType type) {
  const std::string_view plural = repo_type_plural(type);
  return plural.ends_with('s') ? plural.substr(0, plural.size() - 1) : plural;
}

bool is_valid_repo_part(std::string_view part) {
  if (part.empty() || part.size() > kMaxRepoName) return false;
  if (!std::all_of(part.begin(), part.end(), is_name_letter)) return false;
  for (const char end : {part.front(), part.back()})
    if (end == '-' || end == '.') return false;
  return !contains(part, "--") && !contains(part, "..") && !part.ends_with(".git");
}

bool is_valid_repo_id(std::string_view id) {
  if (id.size() > kMaxRepoName) return false;
  const size_t slash = id.find('/');
  if (slash == std::string_view::npos) return is_valid_repo_part(id);
  return is_valid_repo_part(id.substr(0, slash)) && is_valid_repo_part(id.substr(slash + 1));
}

bool is_commit(std::string_view revision) {
  return revision.size() == 40 && std::all_of(revision.begin(), revision.end(), [](char letter) {
           return is_digit(letter) || (letter >= 'a' && letter <= 'f');
         });
}

bool is_valid_revision(std::string_view revision) {
  if (revision.empty() || revision.size() > kMaxRevision || contains(revision, "..")) return false;
  return std::none_of(revision.begin(), revision.end(), [](char letter) {
    return static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f;
  });
}

bool is_valid_repo_path(std::string_view path) {
  if (path.size() > kMaxPath || path.find('\0') != std::string_view::npos) return false;
  for (size_t begin = 0;;) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view segment = path.substr(begin, end - begin);
    if (segment.empty() || segment == "." || segment == "..") return false;
    if (end == path.size()) return true;
    begin = end + 1;
  }
}

ContentKey content_key(const RepoName& repo, const std::string& commit, const TreeEntry& entry) {
  const FileIds& ids = entry.ids;
  if (is_hex(ids.sha256, 64)) return {ContentKind::sha256, lower_hex(ids.sha256)};
  // The git oid of an LFS or Xet file names its pointer, not its bytes.
  const bool is_plain = ids.sha256.empty() && ids.xet.empty();
  if (is_plain && is_hex(ids.git_oid, 40)) return {ContentKind::git_blob, lower_hex(ids.git_oid)};
  return {ContentKind::place,
          cat(repo_type_plural(repo.type), '/', repo.id, '@', commit, '/', entry.path)};
}

Snapshot::Snapshot(RepoName repo, std::string commit, int64_t date, std::vector<TreeEntry> entries,
                   std::vector<uint64_t> content_ids)
    : repo_(std::move(repo)), commit_(std::move(commit)), date_(date) {
  CAKE_CHECK(content_ids.size() == entries.size());
  CAKE_CHECK(entries.size() <= UINT32_MAX);
  std::vector<uint32_t> order = sorted_unique(entries);
  drop_conflicts(entries, order);
  dropped_ = entries.size() - order.size();
  entries_ = take(entries, order);
  content_ids_ = take(content_ids, order);
  nodes_ = TreeBuilder(entries_).build();
}

std::optional<uint32_t> Snapshot::find_child(uint32_t directory, std::string_view name) const {
  CAKE_CHECK(directory < nodes_.size());
  const Node& parent = nodes_[directory];
  const auto begin = nodes_.begin() + parent.first_child;
  const auto end = begin + parent.child_count;
  const auto found = std::lower_bound(
      begin, end, name,
      [](const Node& node, std::string_view wanted) { return node.name < wanted; });
  if (found == end || found->name != name) return std::nullopt;
  return static_cast<uint32_t>(found - nodes_.begin());
}

std::optional<uint32_t> Snapshot::find_path(std::string_view path) const {
  std::optional<uint32_t> ordinal = 0;
  if (path.empty()) return ordinal;
  for (size_t begin = 0; ordinal && begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    ordinal = find_child(*ordinal, path.substr(begin, end - begin));
    begin = end + 1;
  }
  return ordinal;
}

std::optional<uint32_t> Snapshot::find_entry(std::string_view path) const {
  const auto found = std::lower_bound(
      entries_.begin(), entries_.end(), path,
      [](const TreeEntry& entry, std::string_view wanted) { return entry.path < wanted; });
  if (found == entries_.end() || found->path != path) return std::nullopt;
  return static_cast<uint32_t>(found - entries_.begin());
}

}  // namespace cake
