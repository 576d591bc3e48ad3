#include "fetch/hub_server.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "fetch/url.h"
#include "store/base/digest.h"
#include "store/base/log.h"

namespace cake {

using Json = nlohmann::ordered_json;

struct HubServer::State {
  HubContent& content;
  HubServerOptions options;
};

namespace {

constexpr size_t kMaxPathsInfo = 2'000;
constexpr size_t kMaskedDigits = 64;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string format_date(int64_t unix_seconds) {
  std::string text = format_rfc3339(unix_seconds);
  text.insert(text.size() - 1, ".000");
  return text;
}

std::optional<RepoType> find_type(std::string_view plural) {
  for (const RepoType type : {RepoType::model, RepoType::dataset, RepoType::space})
    if (repo_type_plural(type) == plural) return type;
  return std::nullopt;
}

// 24 hexadecimal digits, as hubs number their repos.
std::string number_of(const RepoName& repo) {
  return file_hash_hex(FileHash::sha256, as_bytes(cat(repo_type_singular(repo.type), '/', repo.id)))
      .substr(0, 24);
}

bool is_known_etag(std::string_view header, const std::string& etag) {
  if (header == "*") return true;
  while (!header.empty()) {
    const size_t comma = header.find(',');
    std::string_view one = header.substr(0, comma);
    header = comma == std::string_view::npos ? std::string_view() : header.substr(comma + 1);
    const auto is_blank = [](char letter) { return letter == ' ' || letter == '\t'; };
    while (!one.empty() && is_blank(one.front())) one.remove_prefix(1);
    while (!one.empty() && is_blank(one.back())) one.remove_suffix(1);
    if (one.starts_with("W/")) one.remove_prefix(2);
    if (one == etag) return true;
  }
  return false;
}

// Segments of a path as sent, still encoded.
std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> out;
  while (path.starts_with('/')) path.remove_prefix(1);
  while (!path.empty()) {
    const size_t slash = path.find('/');
    out.push_back(path.substr(0, slash));
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return out;
}

// Decodes the segments from `first` on and joins them with slashes.
std::optional<std::string> join(const std::vector<std::string_view>& segments, size_t first) {
  std::string out;
  for (size_t i = first; i < segments.size(); i++) {
    const auto part = decode_uri_part(segments[i]);
    if (!part) return std::nullopt;
    if (i > first) out += '/';
    out += *part;
  }
  return out;
}

std::string etag_of(const TreeEntry& entry) {
  return cat('"', entry.ids.sha256.empty() ? entry.ids.git_oid : entry.ids.sha256, '"');
}

std::string disposition(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  std::string plain;
  for (const char letter : name)
    plain +=
        letter == '"' || letter == '\\' || static_cast<signed char>(letter) < 32 ? '_' : letter;
  return cat("inline; filename*=UTF-8''", encode_segment(name), "; filename=\"", plain, "\";");
}

std::string resolve_prefix(const RepoName& repo) {
  return repo.type == RepoType::model ? cat('/', repo.id)
                                      : cat('/', repo_type_plural(repo.type), '/', repo.id);
}

}  // namespace

// One request on its way; kept by whoever will answer it.
class HubServer::Call : public std::enable_shared_from_this<HubServer::Call> {
 public:
  Call(std::shared_ptr<const State> state, const HttpServerRequest& request, Reply reply)
      : state_(std::move(state)), request_(request), reply_(std::move(reply)) {}

  void run();

 private:
  using Segments = std::vector<std::string_view>;
  using Then = void (Call::*)(const HubRevision&);

  void run_api(const Segments& segments);
  void run_api_repo(const Segments& segments, size_t verb);
  void run_resolve(const Segments& segments, size_t verb);
  void run_resolve_cache(const Segments& segments);
  // Takes the revision from segment `at`, and the path from what follows.
  bool take_revision(const Segments& segments, size_t at);
  bool is_admitted(bool wants_files);
  void with_revision(Then then);

  void list_repos();
  void repo_info(const HubRevision& revision);
  void tree(const HubRevision& revision);
  void paths_info(const HubRevision& revision);
  void commits(const HubRevision& revision);
  void tree_size(const HubRevision& revision);
  void refs();
  void file(const HubRevision& revision);
  void raw_file(const HubRevision& revision);
  void cached_file(const HubRevision& revision);

  Json tree_entry(const TreeEntry& entry) const;
  Json repo_summary(const RepoName& repo, int64_t last_modified) const;
  std::string masked(const std::string& hash) const;
  bool is_true(std::string_view key) const;
  size_t page_limit() const;
  HttpHeader next_link(std::string_view last) const;
  void send_bytes(const HubRevision& revision, const HubFile& file);
  void send_json(const Json& json, std::vector<HttpHeader> headers = {});
  void fail(int status, const char* code, const std::string& message,
            std::vector<HttpHeader> headers = {});
  void fail_not_found_repo();
  void fail_entry(const HubRevision& revision);
  void fail_route() { fail(404, "", "Sorry, we can't find the page you are looking for."); }

  const std::shared_ptr<const State> state_;
  const HttpServerRequest request_;  // segments view its path
  const Reply reply_;
  bool is_api_ = false;
  bool is_masked_ = false;
  RepoName repo_;
  std::string revision_ = "main", path_;
};

HubServer::HubServer(HubContent& content, HubServerOptions options)
    : state_(std::make_shared<const State>(State{content, std::move(options)})) {}
HubServer::~HubServer() = default;

void HubServer::handle(const HttpServerRequest& request, Reply reply) const {
  std::make_shared<Call>(state_, request, std::move(reply))->run();
}

std::string_view HubServer::token_of(const HttpServerRequest& request) {
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view value = request.find("authorization");
  return value.starts_with(kScheme) ? value.substr(kScheme.size()) : std::string_view();
}

// --- Routes -----------------------------------------------------------------------------

void HubServer::Call::run() {
  const Segments segments = split(request_.path);
  is_api_ = !segments.empty() && segments[0] == "api";
  const bool is_read = request_.method == "GET" || request_.method == "HEAD";
  const bool is_query = request_.method == "POST" && is_api_;
  if (!is_read && !is_query)
    return fail(405, "", "Method not allowed", {{"Allow", "GET, HEAD, POST"}});
  if (is_api_) return run_api(segments);
  // [datasets|spaces]/ORG/NAME/resolve/REV/PATH, and without ORG.
  const size_t id = !segments.empty() && find_type(segments[0]) ? 1 : 0;
  for (const size_t verb : {id + 2, id + 1})
    if (verb < segments.size() && (segments[verb] == "resolve" || segments[verb] == "raw"))
      return run_resolve(segments, verb);
  fail_route();
}

void HubServer::Call::run_api(const Segments& segments) {
  if (segments.size() >= 2 && segments[1] == "resolve-cache") return run_resolve_cache(segments);
  if (segments.size() == 2 && segments[1] == "whoami-v2") {
    const bool is_known = !token_of(request_).empty();
    if (!is_known) return fail(401, "", "Invalid username or password.");
    return send_json({{"type", "user"}, {"name", "user"}, {"orgs", Json::array()}});
  }
  const auto type = segments.size() >= 2 ? find_type(segments[1]) : std::nullopt;
  if (!type) return fail_route();
  repo_.type = *type;
  if (segments.size() == 2) return list_repos();
  // ORG/NAME[/VERB…] or NAME[/VERB…]: the longer id wins where both could be.
  static const std::set<std::string_view> kVerbs = {
      "revision", "tree", "refs", "commits", "paths-info", "auth-check", "treesize"};
  const bool has_two =
      segments.size() == 4 || (segments.size() > 4 && kVerbs.contains(segments[4]));
  if (has_two) {
    repo_.id = cat(segments[2], '/', segments[3]);
    const bool is_short =
        segments.size() == 4 && kVerbs.contains(segments[3]) && !state_->content.has_repo(repo_);
    if (!is_short) return run_api_repo(segments, 4);
  }
  repo_.id = segments[2];
  run_api_repo(segments, 3);
}

void HubServer::Call::run_api_repo(const Segments& segments, size_t verb) {
  if (!is_admitted(false)) return;
  const std::string_view word = verb < segments.size() ? segments[verb] : "revision";
  const bool is_post = request_.method == "POST";
  if (is_post != (word == "paths-info")) return fail(405, "", "Method not allowed");
  if (word == "refs") return refs();
  if (word == "auth-check") {
    if (is_admitted(true)) reply_({.body = "OK"});
    return;
  }
  if (verb + 1 < segments.size() && !take_revision(segments, verb + 1))
    return fail(400, "", "Malformed path");
  if (word == "revision") return with_revision(&Call::repo_info);
  if (word == "tree") return with_revision(&Call::tree);
  if (word == "paths-info") return with_revision(&Call::paths_info);
  if (word == "commits") return with_revision(&Call::commits);
  if (word == "treesize") return with_revision(&Call::tree_size);
  fail_route();
}

void HubServer::Call::run_resolve(const Segments& segments, size_t verb) {
  const auto type = find_type(segments[0]);
  repo_.type = type.value_or(RepoType::model);
  const size_t id = type ? 1 : 0;
  const auto name =
      join(Segments(segments.begin(), segments.begin() + static_cast<long>(verb)), id);
  if (!name || verb + 2 >= segments.size() || !take_revision(segments, verb + 1))
    return fail_route();
  repo_.id = *name;
  if (!is_admitted(true)) return;
  with_revision(segments[verb] == "raw" ? &Call::raw_file : &Call::file);
}

void HubServer::Call::run_resolve_cache(const Segments& segments) {
  // /api/resolve-cache/models/ORG/NAME/COMMIT/PATH
  const auto type = segments.size() >= 6 ? find_type(segments[2]) : std::nullopt;
  if (!type) return fail_route();
  repo_.type = *type;
  repo_.id = cat(segments[3], '/', segments[4]);
  size_t at = 5;
  if (!state_->content.has_repo(repo_)) {
    repo_.id = segments[3];
    at = 4;
  }
  if (at + 1 >= segments.size() || !take_revision(segments, at)) return fail_route();
  if (!is_commit(revision_)) return fail(400, "", "Not a commit: " + revision_);
  if (!is_admitted(true)) return;
  with_revision(&Call::cached_file);
}

bool HubServer::Call::take_revision(const Segments& segments, size_t at) {
  size_t next = at + 1;
  auto revision = decode_uri_part(segments[at]);
  // "refs/pr/1" with its slashes unencoded.
  if (revision == "refs" && at + 2 < segments.size()) {
    const auto rest =
        join(Segments(segments.begin(), segments.begin() + static_cast<long>(at) + 3), at + 1);
    if (!rest) return false;
    revision = cat("refs/", *rest);
    next = at + 3;
  }
  auto path = join(segments, next);
  if (!revision || !path) return false;
  while (path->ends_with('/')) path->pop_back();
  revision_ = *revision == "HEAD" ? "main" : *revision;  // the JavaScript client asks for HEAD
  path_ = *path;
  return true;
}

bool HubServer::Call::is_admitted(bool wants_files) {
  const std::string_view token = token_of(request_);
  const auto& access = state_->options.access;
  const HubAccess verdict = access ? access(repo_, token) : HubAccess::open;
  const HttpHeader login{"WWW-Authenticate",
                         "Bearer realm=\"Authentication required\", charset=\"UTF-8\""};
  is_masked_ = verdict == HubAccess::gated;
  if (verdict == HubAccess::bad_token) {
    fail(401, "", "Invalid credentials in Authorization header", {login});
    return false;
  }
  if (verdict == HubAccess::hidden || !state_->content.has_repo(repo_)) {
    fail_not_found_repo();
    return false;
  }
  if (verdict == HubAccess::disabled) {
    fail(403, "", "Access to this resource is disabled.");
    return false;
  }
  if (verdict != HubAccess::gated || !wants_files) return true;
  if (path_ == "README.md" || path_ == "LICENSE") return true;  // these stay readable
  const std::string what =
      cat("Access to ", repo_type_singular(repo_.type), ' ', repo_.id, " is restricted");
  if (token.empty())
    fail(401, "GatedRepo",
         what + ". You must have access to it and be authenticated to access it. Please log in.",
         {login});
  else
    fail(403, "GatedRepo", what + " and you are not in the authorized list.");
  return false;
}

void HubServer::Call::with_revision(Then then) {
  state_->content.get_revision(
      repo_, revision_, [self = shared_from_this(), then](Result<HubRevisionPtr> outcome) {
        if (outcome) return (self.get()->*then)(**outcome);
        if (outcome.error().code == Errc::not_found)
          return self->fail(404, "RevisionNotFound", "Invalid rev id: " + self->revision_);
        self->fail(500, "", "The repo cannot be read; the server's log says why.");
      });
}

// --- Names --------------------------------------------------------------------------------

Json HubServer::Call::repo_summary(const RepoName& repo, int64_t last_modified) const {
  const size_t slash = repo.id.find('/');
  Json out = {{"_id", number_of(repo)}, {"id", repo.id}};
  if (repo.type == RepoType::model) out["modelId"] = repo.id;
  if (slash != std::string::npos) out["author"] = repo.id.substr(0, slash);
  out["lastModified"] = format_date(last_modified);
  out["createdAt"] = format_date(last_modified);
  out["private"] = false;
  out["disabled"] = false;
  out["gated"] = false;
  out["likes"] = 0;
  out["downloads"] = 0;
  out["tags"] = Json::array();
  return out;
}

void HubServer::Call::list_repos() {
  auto all = state_->content.list_repos(repo_.type);
  if (!all) {
    log_warn("hub: " + all.error().message);
    return fail(500, "", "The repos cannot be listed; the server's log says why.");
  }
  const auto author = find_query(request_.query, "author");
  const auto search = find_query(request_.query, "search");
  const std::string cursor = find_query(request_.query, "cursor").value_or("");
  const size_t limit = page_limit();
  Json out = Json::array();
  std::string last;
  for (const HubRepo& each : *all) {
    const RepoName repo{repo_.type, each.id};
    if (each.id <= cursor || (author && !each.id.starts_with(*author + "/")) ||
        (search && each.id.find(*search) == std::string::npos))
      continue;
    if (state_->options.access) {
      const HubAccess verdict = state_->options.access(repo, token_of(request_));
      // A token that is refused is refused for every URL.
      if (verdict == HubAccess::bad_token)
        return fail(401, "", "Invalid credentials in Authorization header");
      if (verdict == HubAccess::hidden) continue;
    }
    if (out.size() == limit) return send_json(out, {next_link(last)});
    out.push_back(repo_summary(repo, each.last_modified));
    last = each.id;
  }
  send_json(out);
}

void HubServer::Call::repo_info(const HubRevision& revision) {
  Json out = repo_summary(repo_, revision.last_modified);
  out["sha"] = revision.commit;
  if (is_masked_) out["gated"] = "manual";
  const bool has_blobs = is_true("blobs");
  Json siblings = Json::array();
  uint64_t total = 0;
  for (const HubFile& file : revision.files) {
    const TreeEntry& entry = file.entry;
    total += entry.bytes;
    Json one = {{"rfilename", entry.path}};
    if (has_blobs) {
      one["size"] = entry.bytes;
      one["blobId"] = entry.ids.git_oid;
      if (!entry.ids.sha256.empty())
        one["lfs"] = {{"size", entry.bytes},
                      {"sha256", masked(entry.ids.sha256)},
                      {"pointerSize", lfs_pointer(entry.ids.sha256, entry.bytes).size()}};
    }
    siblings.push_back(std::move(one));
  }
  out["siblings"] = std::move(siblings);
  out["usedStorage"] = total;
  send_json(out);
}

void HubServer::Call::refs() {
  state_->content.get_refs(repo_, [self = shared_from_this()](Result<std::vector<HubRef>> refs) {
    if (!refs) return self->fail(500, "", "The refs cannot be read; the server's log says why.");
    const bool with_prs = self->is_true("include_prs");
    Json out = {{"tags", Json::array()}, {"branches", Json::array()}, {"converts", Json::array()}};
    if (with_prs) out["pullRequests"] = Json::array();
    for (const HubRef& ref : *refs) {
      static const std::map<HubRef::Kind, const char*> kKeys = {
          {HubRef::Kind::tag, "tags"},
          {HubRef::Kind::branch, "branches"},
          {HubRef::Kind::convert, "converts"},
          {HubRef::Kind::pull_request, "pullRequests"}};
      if (ref.kind == HubRef::Kind::pull_request && !with_prs) continue;
      out[kKeys.at(ref.kind)].push_back(
          {{"name", ref.name}, {"ref", ref.ref}, {"targetCommit", ref.commit}});
    }
    self->send_json(out);
  });
}

void HubServer::Call::commits(const HubRevision& revision) {
  send_json(Json::array({{{"id", revision.commit},
                          {"title", "Content of the folder"},
                          {"message", ""},
                          {"authors", Json::array()},
                          {"date", format_date(revision.last_modified)}}}),
            {{"X-Total-Count", "1"}});
}

// --- Trees ----------------------------------------------------------------------------------

std::string HubServer::Call::masked(const std::string& hash) const {
  return is_masked_ ? std::string(kMaskedDigits, '*') : hash;
}

Json HubServer::Call::tree_entry(const TreeEntry& entry) const {
  Json out = {
      {"type", "file"}, {"oid", entry.ids.git_oid}, {"size", entry.bytes}, {"path", entry.path}};
  if (!entry.ids.sha256.empty())
    out["lfs"] = {{"oid", masked(entry.ids.sha256)},
                  {"size", entry.bytes},
                  {"pointerSize", lfs_pointer(entry.ids.sha256, entry.bytes).size()}};
  if (!entry.ids.xet.empty()) out["xetHash"] = masked(entry.ids.xet);
  return out;
}

namespace {

Json directory_entry(const std::string& commit, std::string_view path) {
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

void HubServer::Call::tree(const HubRevision& revision) {
  const auto entries = entries_below(revision, path_, is_true("recursive"));
  if (entries.empty() && !path_.empty())
    return fail(404, "EntryNotFound", cat(path_, " does not exist on \"", revision_, '"'));
  const std::string cursor = find_query(request_.query, "cursor").value_or("");
  const size_t limit = page_limit();
  Json out = Json::array();
  for (auto each = cursor.empty() ? entries.begin() : entries.upper_bound(cursor);
       each != entries.end(); ++each) {
    if (out.size() == limit) return send_json(out, {next_link(std::prev(each)->first)});
    out.push_back(each->second == nullptr ? directory_entry(revision.commit, each->first)
                                          : tree_entry(*each->second));
  }
  send_json(out);
}

void HubServer::Call::tree_size(const HubRevision& revision) {
  uint64_t total = 0;
  for (const auto& [path, entry] : entries_below(revision, path_, true))
    if (entry != nullptr) total += entry->bytes;
  send_json({{"path", "/" + path_}, {"size", total}});
}

void HubServer::Call::paths_info(const HubRevision& revision) {
  std::vector<std::string> paths;
  const Json body = Json::parse(request_.body, nullptr, false);
  if (body.is_object() && body.contains("paths")) {
    const Json& list = body["paths"];
    if (list.is_string()) paths.push_back(list);
    if (list.is_array())
      for (const Json& one : list)
        if (one.is_string()) paths.push_back(one);
  } else {  // a form: paths=A&paths=B
    std::string_view rest = request_.body;
    while (!rest.empty() && paths.size() <= kMaxPathsInfo) {
      const size_t end = rest.find('&');
      if (auto value = find_query(rest.substr(0, end), "paths")) paths.push_back(*value);
      rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    }
  }
  if (paths.size() > kMaxPathsInfo) return fail(400, "", "Too many paths");
  Json out = Json::array();
  for (std::string& path : paths) {
    while (path.ends_with('/')) path.pop_back();
    if (const HubFile* file = revision.find(path))
      out.push_back(tree_entry(file->entry));
    else if (!path.empty() && !entries_below(revision, path, false).empty())
      out.push_back(directory_entry(revision.commit, path));
  }
  send_json(out);
}

// --- Files --------------------------------------------------------------------------------

HttpServerResponse HubServer::file_response(const HttpServerRequest& request, const HubFile& file,
                                            const std::string& etag,
                                            std::vector<HttpHeader> headers) {
  headers.push_back({"ETag", etag});
  headers.push_back({"Accept-Ranges", "bytes"});
  if (is_known_etag(request.find("if-none-match"), etag))
    return {.status = 304, .headers = std::move(headers), .body = ""};
  const uint64_t bytes = file.entry.bytes;
  const auto asked = parse_range_header(request.find("range"), bytes);
  if (!asked && bytes > 0) {
    headers.push_back({"Content-Range", cat("bytes */", bytes)});
    return {.status = 416, .headers = std::move(headers), .body = ""};
  }
  const auto range = asked ? *asked : std::nullopt;
  auto body = file.open(range.value_or(ByteRange{0, bytes}));
  if (!body) {
    log_warn("hub: " + body.error().message);
    return {.status = 410, .body = "The file changed on the server since this commit."};
  }
  if (range)
    headers.push_back(
        {"Content-Range", cat("bytes ", range->offset, '-', range->end() - 1, '/', bytes)});
  return {.status = range ? 206 : 200, .headers = std::move(headers), .body = std::move(*body)};
}

void HubServer::Call::fail_entry(const HubRevision& revision) {
  fail(404, "EntryNotFound", "Entry not found", {{"X-Repo-Commit", revision.commit}});
}

void HubServer::Call::send_bytes(const HubRevision& revision, const HubFile& file) {
  const TreeEntry& entry = file.entry;
  const bool is_fixed = is_commit(revision_);
  reply_(file_response(
      request_, file, etag_of(entry),
      {{"X-Repo-Commit", revision.commit},
       {"X-Linked-Etag", etag_of(entry)},
       {"X-Linked-Size", std::to_string(entry.bytes)},
       {"Content-Type",
        entry.ids.sha256.empty() ? "text/plain; charset=utf-8" : "application/octet-stream"},
       {"Content-Disposition", disposition(entry.path)},
       {"X-Content-Type-Options", "nosniff"},
       {"Cache-Control", is_fixed ? "public, max-age=31536000, immutable" : "no-cache"}}));
}

void HubServer::Call::file(const HubRevision& revision) {
  const HubFile* found = revision.find(path_);
  if (found == nullptr) return fail_entry(revision);
  const TreeEntry& entry = found->entry;
  const auto& options = state_->options;
  const HubShape shape = options.shape ? options.shape(repo_, entry) : HubShape::direct;
  if (shape == HubShape::direct) return send_bytes(revision, *found);
  std::vector<HttpHeader> headers = {{"X-Repo-Commit", revision.commit},
                                     {"X-Linked-Etag", etag_of(entry)},
                                     {"Accept-Ranges", "bytes"},
                                     {"Content-Type", "text/plain; charset=utf-8"}};
  std::string location;
  if (shape == HubShape::cdn) {
    location = options.cdn_url(repo_, revision.commit, entry);
    headers.push_back({"X-Linked-Size", std::to_string(entry.bytes)});
    headers.push_back({"Cache-Control", "no-store"});
  } else {
    location =
        cat("/api/resolve-cache/", repo_type_plural(repo_.type), '/', repo_.id, '/',
            revision.commit, '/', encode_path(entry.path), '?',
            encode_segment(cat(resolve_prefix(repo_), "/resolve/", revision_, '/', entry.path)),
            "=&etag=", encode_segment(etag_of(entry)));
  }
  const int status = shape == HubShape::cdn ? 302 : 307;
  const std::string text =
      cat(status == 302 ? "Found" : "Temporary Redirect", ". Redirecting to ", location);
  headers.push_back({"Location", location});
  reply_({.status = status, .headers = std::move(headers), .body = text});
}

void HubServer::Call::cached_file(const HubRevision& revision) {
  const HubFile* found = revision.find(path_);
  if (found == nullptr) return fail_entry(revision);
  send_bytes(revision, *found);
}

void HubServer::Call::raw_file(const HubRevision& revision) {
  const HubFile* found = revision.find(path_);
  if (found == nullptr) return fail_entry(revision);
  if (found->entry.ids.sha256.empty()) return send_bytes(revision, *found);
  reply_({.headers = {{"X-Repo-Commit", revision.commit},
                      {"Content-Type", "text/plain; charset=utf-8"}},
          .body = lfs_pointer(found->entry.ids.sha256, found->entry.bytes)});
}

// --- Answers --------------------------------------------------------------------------------

bool HubServer::Call::is_true(std::string_view key) const {
  const auto value = find_query(request_.query, key);
  return value && (value->empty() || *value == "1" || *value == "true" || *value == "True");
}

size_t HubServer::Call::page_limit() const {
  const size_t most = std::max<size_t>(1, state_->options.page_limit);
  const std::string asked = find_query(request_.query, "limit").value_or("");
  const auto limit = parse_size(asked);
  return limit && *limit > 0 ? std::min<size_t>(most, *limit) : most;
}

// Absolute, with the request's own parameters and the cursor behind `last`.
HttpHeader HubServer::Call::next_link(std::string_view last) const {
  std::string kept;
  std::string_view rest = request_.query;
  while (!rest.empty()) {
    const size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (pair.empty() || pair.starts_with("cursor=")) continue;
    kept += cat(pair, '&');
  }
  const std::string_view host = request_.find("host");
  const std::string_view sent_scheme = request_.find("x-forwarded-proto");
  const std::string_view scheme = sent_scheme == "https" ? "https" : "http";
  return {"Link", cat('<', scheme, "://", host, request_.path, '?', kept,
                      "cursor=", encode_segment(last), ">; rel=\"next\"")};
}

void HubServer::Call::send_json(const Json& json, std::vector<HttpHeader> headers) {
  headers.push_back({"Content-Type", "application/json; charset=utf-8"});
  reply_({.headers = std::move(headers), .body = dump(json)});
}

void HubServer::Call::fail(int status, const char* code, const std::string& message,
                           std::vector<HttpHeader> headers) {
  // Names from the request are in the message; a header holds plain text only.
  std::string plain = message;
  for (char& letter : plain)
    if (letter < 32 || letter == 127) letter = '?';
  if (*code != '\0') headers.push_back({"X-Error-Code", code});
  headers.push_back({"X-Error-Message", plain});
  headers.push_back(
      {"Content-Type", is_api_ ? "application/json; charset=utf-8" : "text/plain; charset=utf-8"});
  reply_({.status = status,
          .headers = std::move(headers),
          .body = is_api_ ? dump({{"error", message}}) : message});
}

void HubServer::Call::fail_not_found_repo() {
  if (!token_of(request_).empty()) return fail(404, "RepoNotFound", "Repository not found");
  fail(401, "", "Invalid username or password.",
       {{"WWW-Authenticate", "Bearer realm=\"Authentication required\", charset=\"UTF-8\""}});
}

}  // namespace cake
