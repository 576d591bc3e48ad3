#include "fetch/hub_json.h"

#include <map>
#include <nlohmann/json.hpp>

#include "store/base/clock.h"
#include "store/base/digest.h"

namespace cake {

using OrderedJson = nlohmann::ordered_json;

namespace {

constexpr size_t kMaskedDigits = 64;

std::string dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

std::string format_date(int64_t unix_seconds) {
  std::string text = format_rfc3339(unix_seconds);
  text.insert(text.size() - 1, ".000");
  return text;
}

// 24 hexadecimal digits, as hubs number their repos.
std::string number_of(const RepoName& repo) {
  return file_hash_hex(FileHash::sha256, as_bytes(cat(repo_type_singular(repo.type), '/', repo.id)))
      .substr(0, 24);
}

std::string masked(const std::string& hash, bool is_masked) {
  return is_masked ? std::string(kMaskedDigits, '*') : hash;
}

OrderedJson repo_summary(const RepoName& repo, int64_t last_modified) {
  const size_t slash = repo.id.find('/');
  OrderedJson out = {{"_id", number_of(repo)}, {"id", repo.id}};
  if (repo.type == RepoType::model) out["modelId"] = repo.id;
  if (slash != std::string::npos) out["author"] = repo.id.substr(0, slash);
  out["lastModified"] = format_date(last_modified);
  out["createdAt"] = format_date(last_modified);
  out["private"] = false;
  out["disabled"] = false;
  out["gated"] = false;
  out["likes"] = 0;
  out["downloads"] = 0;
  out["tags"] = OrderedJson::array();
  return out;
}

OrderedJson tree_entry(const TreeEntry& entry, bool is_masked) {
  OrderedJson out = {
      {"type", "file"}, {"oid", entry.ids.git_oid}, {"size", entry.bytes}, {"path", entry.path}};
  if (!entry.ids.sha256.empty())
    out["lfs"] = {{"oid", masked(entry.ids.sha256, is_masked)},
                  {"size", entry.bytes},
                  {"pointerSize", lfs_pointer(entry.ids.sha256, entry.bytes).size()}};
  if (!entry.ids.xet.empty()) out["xetHash"] = masked(entry.ids.xet, is_masked);
  return out;
}

OrderedJson directory_entry(const std::string& commit, std::string_view path) {
  return {{"type", "directory"},
          {"oid", file_hash_hex(FileHash::git_blob_sha1, as_bytes(cat(commit, '/', path)))},
          {"size", 0},
          {"path", path}};
}

// Path → file (null: a directory) of what lies in `directory`, all the way down or one step.
std::map<std::string_view, const TreeEntry*> entries_below(const HubRevision& revision,
                                                           const std::string& directory,
                                                           bool is_recursive) {
  const std::string prefix = directory.empty() ? "" : directory + "/";
  std::map<std::string_view, const TreeEntry*> out;
  for (const HubFile& file : revision.files) {
    const std::string_view path = file.entry.path;
    if (!path.starts_with(prefix)) continue;
    bool is_shown = true;
    for (size_t slash = path.find('/', prefix.size()); slash != std::string_view::npos;
         slash = path.find('/', slash + 1)) {
      out[path.substr(0, slash)] = nullptr;
      is_shown = is_recursive;
      if (!is_recursive) break;
    }
    if (is_shown) out[path] = &file.entry;
  }
  return out;
}

}  // namespace

HubPage hub_repos_json(RepoType type, const std::vector<HubRepo>& repos,
                       const HubPageOptions& options) {
  OrderedJson out = OrderedJson::array();
  std::string last;
  for (const HubRepo& each : repos) {
    if (each.id <= options.cursor) continue;
    if (out.size() == options.limit) return {dump(out), last};
    out.push_back(repo_summary({type, each.id}, each.last_modified));
    last = each.id;
  }
  return {dump(out), std::nullopt};
}

std::optional<HubPage> hub_tree_json(const HubRevision& revision, const std::string& directory,
                                     bool is_recursive, const HubPageOptions& options) {
  const auto entries = entries_below(revision, directory, is_recursive);
  if (entries.empty() && !directory.empty()) return std::nullopt;
  OrderedJson out = OrderedJson::array();
  for (auto each = options.cursor.empty() ? entries.begin() : entries.upper_bound(options.cursor);
       each != entries.end(); ++each) {
    if (out.size() == options.limit) return HubPage{dump(out), std::string(std::prev(each)->first)};
    out.push_back(each->second == nullptr ? directory_entry(revision.commit, each->first)
                                          : tree_entry(*each->second, options.is_masked));
  }
  return HubPage{dump(out), std::nullopt};
}

std::string hub_info_json(const RepoName& repo, const HubRevision& revision, bool is_masked,
                          bool has_blobs) {
  OrderedJson out = repo_summary(repo, revision.last_modified);
  out["sha"] = revision.commit;
  if (is_masked) out["gated"] = "manual";
  OrderedJson siblings = OrderedJson::array();
  uint64_t total = 0;
  for (const HubFile& file : revision.files) {
    const TreeEntry& entry = file.entry;
    total += entry.bytes;
    OrderedJson one = {{"rfilename", entry.path}};
    if (has_blobs) {
      one["size"] = entry.bytes;
      one["blobId"] = entry.ids.git_oid;
      if (!entry.ids.sha256.empty())
        one["lfs"] = {{"size", entry.bytes},
                      {"sha256", masked(entry.ids.sha256, is_masked)},
                      {"pointerSize", lfs_pointer(entry.ids.sha256, entry.bytes).size()}};
    }
    siblings.push_back(std::move(one));
  }
  out["siblings"] = std::move(siblings);
  out["usedStorage"] = total;
  return dump(out);
}

std::string hub_refs_json(const std::vector<HubRef>& refs, bool with_pull_requests) {
  OrderedJson out = {{"tags", OrderedJson::array()},
                     {"branches", OrderedJson::array()},
                     {"converts", OrderedJson::array()}};
  if (with_pull_requests) out["pullRequests"] = OrderedJson::array();
  for (const HubRef& ref : refs) {
    static const std::map<HubRef::Kind, const char*> kKeys = {
        {HubRef::Kind::tag, "tags"},
        {HubRef::Kind::branch, "branches"},
        {HubRef::Kind::convert, "converts"},
        {HubRef::Kind::pull_request, "pullRequests"}};
    if (ref.kind == HubRef::Kind::pull_request && !with_pull_requests) continue;
    out[kKeys.at(ref.kind)].push_back(
        {{"name", ref.name}, {"ref", ref.ref}, {"targetCommit", ref.commit}});
  }
  return dump(out);
}

std::string hub_commits_json(const HubRevision& revision) {
  return dump(OrderedJson::array({{{"id", revision.commit},
                                   {"title", "Content of the folder"},
                                   {"message", ""},
                                   {"authors", OrderedJson::array()},
                                   {"date", format_date(revision.last_modified)}}}));
}

std::string hub_tree_size_json(const HubRevision& revision, const std::string& directory) {
  uint64_t total = 0;
  for (const auto& [path, entry] : entries_below(revision, directory, true))
    if (entry != nullptr) total += entry->bytes;
  return dump({{"path", "/" + directory}, {"size", total}});
}

std::string hub_paths_json(const HubRevision& revision, const std::vector<std::string>& paths,
                           bool is_masked) {
  OrderedJson out = OrderedJson::array();
  for (std::string path : paths) {
    while (path.ends_with('/')) path.pop_back();
    if (const HubFile* file = revision.find(path))
      out.push_back(tree_entry(file->entry, is_masked));
    else if (!path.empty() && !entries_below(revision, path, false).empty())
      out.push_back(directory_entry(revision.commit, path));
  }
  return dump(out);
}

std::string hub_user_json() {
  return dump({{"type", "user"}, {"name", "user"}, {"orgs", OrderedJson::array()}});
}

std::string hub_error_json(std::string_view message) {
  return dump({{"error", message}});
}

std::vector<std::string> parse_asked_paths(std::string_view body, size_t limit) {
  std::vector<std::string> paths;
  const OrderedJson json = OrderedJson::parse(body, nullptr, false);
  if (json.is_object() && json.contains("paths")) {
    const OrderedJson& list = json["paths"];
    if (list.is_string()) paths.push_back(list);
    if (list.is_array())
      for (const OrderedJson& one : list)
        if (one.is_string() && paths.size() <= limit) paths.push_back(one);
    return paths;
  }
  // A form: paths=A&paths=B
  while (!body.empty() && paths.size() <= limit) {
    const size_t end = body.find('&');
    if (auto value = find_query(body.substr(0, end), "paths")) paths.push_back(*value);
    body = end == std::string_view::npos ? std::string_view() : body.substr(end + 1);
  }
  return paths;
}

}  // namespace cake
