#include "fetch/hub_server.h"

#include <algorithm>

#include "fetch/hub_files.h"
#include "fetch/hub_json.h"
#include "fetch/hub_route.h"
#include "fetch/url.h"
#include "store/base/log.h"

namespace cake {

struct HubServer::State {
  HubContent& content;
  HubServerOptions options;
};

namespace {

constexpr size_t kMaxPathsInfo = 2'000;

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
  using Then = void (Call::*)(const HubRevision&);

  void run_api_repo();
  bool is_admitted(bool wants_files);
  bool has_bad_token() const;
  void with_revision(Then then);

  void who_am_i();
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

  void send_repos(Result<std::vector<HubRepo>> all);
  bool is_true(std::string_view key) const;
  HubPageOptions page_options() const;
  HttpHeader next_link(std::string_view last) const;
  void send_bytes(const HubRevision& revision, const HubFile& file);
  void send_page(HubPage page);
  // `is_fixed`: the answer can never change.
  void send_json(std::string json, bool is_fixed = false, std::vector<HttpHeader> headers = {});
  bool asks_for_commit() const { return is_commit(revision_); }
  HttpHeader cache_control(bool is_fixed) const {
    return hub_cache_control(is_fixed, state_->options.is_private);
  }
  void fail(int status, const char* code, const std::string& message,
            std::vector<HttpHeader> headers = {});
  void fail_not_found_repo();
  void fail_content(const Error& error);
  void fail_entry(const HubRevision& revision);
  void fail_route() { fail(404, "", "Sorry, we can't find the page you are looking for."); }

  const std::shared_ptr<const State> state_;
  const HttpServerRequest request_;  // segments view its path
  const Reply reply_;
  HubRoute::Kind kind_ = HubRoute::Kind::none;
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
  using Kind = HubRoute::Kind;
  const bool is_read = request_.method == "GET" || request_.method == "HEAD";
  HubRoute route = parse_hub_route(
      request_.path, [&](const RepoName& repo) { return state_->content.has_repo(repo); });
  is_api_ = route.is_api;
  kind_ = route.kind;
  repo_ = std::move(route.repo);
  revision_ = std::move(route.revision);
  path_ = std::move(route.path);
  if (!is_read && (request_.method != "POST" || !is_api_))
    return fail(405, "", "Method not allowed", {{"Allow", "GET, HEAD, POST"}});
  switch (kind_) {
    case Kind::none:
      return fail_route();
    case Kind::whoami:
      return who_am_i();
    case Kind::list:
      return list_repos();
    case Kind::resolve_cache:
      if (!asks_for_commit()) return fail(400, "", "Not a commit: " + revision_);
      if (is_admitted(true)) with_revision(&Call::cached_file);
      return;
    case Kind::resolve:
    case Kind::raw:
      if (is_admitted(true)) with_revision(kind_ == Kind::raw ? &Call::raw_file : &Call::file);
      return;
    default:
      return run_api_repo();
  }
}

void HubServer::Call::run_api_repo() {
  using Kind = HubRoute::Kind;
  if (!is_admitted(false)) return;
  if ((request_.method == "POST") != (kind_ == Kind::paths_info))
    return fail(405, "", "Method not allowed");
  switch (kind_) {
    case Kind::refs:
      return refs();
    case Kind::auth_check:
      if (is_admitted(true)) {
        HttpServerResponse response;
        response.body = "OK";
        reply_(std::move(response));
      }
      return;
    case Kind::info:
      return with_revision(&Call::repo_info);
    case Kind::tree:
      return with_revision(&Call::tree);
    case Kind::paths_info:
      return with_revision(&Call::paths_info);
    case Kind::commits:
      return with_revision(&Call::commits);
    case Kind::tree_size:
      return with_revision(&Call::tree_size);
    default:
      return fail(400, "", "Malformed path");
  }
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
  if (verdict == HubAccess::hidden || !state_->content.may_have_repo(repo_)) {
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
        if (outcome.error().code != Errc::not_found) return self->fail_content(outcome.error());
        if (!self->state_->content.has_repo(self->repo_)) return self->fail_not_found_repo();
        self->fail(404, "RevisionNotFound", "Invalid rev id: " + self->revision_);
      });
}

// --- Names --------------------------------------------------------------------------------

void HubServer::Call::who_am_i() {
  if (token_of(request_).empty() || has_bad_token())
    return fail(401, "", "Invalid username or password.");
  send_json(hub_user_json());
}

bool HubServer::Call::has_bad_token() const {
  const auto& access = state_->options.access;
  return access && access(repo_, token_of(request_)) == HubAccess::bad_token;
}

void HubServer::Call::list_repos() {
  // A token that is refused is refused for every URL.
  if (has_bad_token()) return fail(401, "", "Invalid credentials in Authorization header");
  const auto author = find_query(request_.query, "author");
  auto take = [self = shared_from_this()](Result<std::vector<HubRepo>> all) {
    self->send_repos(std::move(all));
  };
  if (author && !author->empty())
    state_->content.list_author(repo_.type, *author, std::move(take));
  else
    take(state_->content.list_repos(repo_.type));
}

void HubServer::Call::send_repos(Result<std::vector<HubRepo>> all) {
  if (!all) return fail_content(all.error());
  const auto search = find_query(request_.query, "search");
  std::vector<HubRepo> shown;
  for (HubRepo& each : *all) {
    if (search && each.id.find(*search) == std::string::npos) continue;
    if (state_->options.access) {
      const HubAccess verdict = state_->options.access({repo_.type, each.id}, token_of(request_));
      if (verdict == HubAccess::bad_token)
        return fail(401, "", "Invalid credentials in Authorization header");
      if (verdict == HubAccess::hidden) continue;
    }
    shown.push_back(std::move(each));
  }
  send_page(hub_repos_json(repo_.type, shown, page_options()));
}

void HubServer::Call::repo_info(const HubRevision& revision) {
  send_json(hub_info_json(repo_, revision, is_masked_, is_true("blobs")), asks_for_commit());
}

void HubServer::Call::refs() {
  state_->content.get_refs(repo_, [self = shared_from_this()](Result<std::vector<HubRef>> refs) {
    if (refs) return self->send_json(hub_refs_json(*refs, self->is_true("include_prs")));
    if (refs.error().code == Errc::not_found) return self->fail_not_found_repo();
    self->fail_content(refs.error());
  });
}

void HubServer::Call::commits(const HubRevision& revision) {
  send_json(hub_commits_json(revision), asks_for_commit(), {{"X-Total-Count", "1"}});
}

void HubServer::Call::tree(const HubRevision& revision) {
  auto page = hub_tree_json(revision, path_, is_true("recursive"), page_options());
  if (!page) return fail(404, "EntryNotFound", cat(path_, " does not exist on \"", revision_, '"'));
  send_page(std::move(*page));
}

void HubServer::Call::tree_size(const HubRevision& revision) {
  send_json(hub_tree_size_json(revision, path_), asks_for_commit());
}

void HubServer::Call::paths_info(const HubRevision& revision) {
  const std::vector<std::string> paths = parse_asked_paths(request_.body, kMaxPathsInfo);
  if (paths.size() > kMaxPathsInfo) return fail(400, "", "Too many paths");
  send_json(hub_paths_json(revision, paths, is_masked_));
}

// --- Files --------------------------------------------------------------------------------

void HubServer::Call::fail_entry(const HubRevision& revision) {
  fail(404, "EntryNotFound", "Entry not found", {{"X-Repo-Commit", revision.commit}});
}

void HubServer::Call::send_bytes(const HubRevision& revision, const HubFile& file) {
  const TreeEntry& entry = file.entry;
  answer_hub_file(request_, file, hub_etag(entry),
                  {{"X-Repo-Commit", revision.commit},
                   {"X-Linked-Etag", hub_etag(entry)},
                   {"X-Linked-Size", std::to_string(entry.bytes)},
                   {"Content-Type", entry.ids.sha256.empty() ? "text/plain; charset=utf-8"
                                                             : "application/octet-stream"},
                   {"Content-Disposition", hub_disposition(entry.path)},
                   {"X-Content-Type-Options", "nosniff"},
                   cache_control(asks_for_commit())},
                  reply_);
}

void HubServer::Call::file(const HubRevision& revision) {
  const HubFile* found = revision.find(path_);
  if (found == nullptr) return fail_entry(revision);
  const TreeEntry& entry = found->entry;
  const auto& options = state_->options;
  const HubShape shape = options.shape ? options.shape(repo_, entry) : HubShape::direct;
  if (shape == HubShape::direct && (asks_for_commit() || !options.pins_commits))
    return send_bytes(revision, *found);
  std::vector<HttpHeader> headers = {{"X-Repo-Commit", revision.commit},
                                     {"X-Linked-Etag", hub_etag(entry)},
                                     {"Accept-Ranges", "bytes"},
                                     {"Content-Type", "text/plain; charset=utf-8"}};
  std::string location;
  if (shape == HubShape::cdn) {
    location = options.cdn_url(repo_, revision.commit, entry);
    headers.push_back({"X-Linked-Size", std::to_string(entry.bytes)});
    headers.push_back({"Cache-Control", "no-store"});
  } else if (shape == HubShape::direct) {
    location =
        cat(resolve_prefix(repo_), "/resolve/", revision.commit, '/', encode_path(entry.path));
    headers.push_back({"X-Linked-Size", std::to_string(entry.bytes)});
    headers.push_back(cache_control(false));
  } else {
    location =
        cat("/api/resolve-cache/", repo_type_plural(repo_.type), '/', repo_.id, '/',
            revision.commit, '/', encode_path(entry.path), '?',
            encode_segment(cat(resolve_prefix(repo_), "/resolve/", revision_, '/', entry.path)),
            "=&etag=", encode_segment(hub_etag(entry)));
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

HubPageOptions HubServer::Call::page_options() const {
  const size_t most = std::max<size_t>(1, state_->options.page_limit);
  const std::string asked = find_query(request_.query, "limit").value_or("");
  const auto limit = parse_size(asked);
  return {is_masked_, limit && *limit > 0 ? std::min<size_t>(most, *limit) : most,
          find_query(request_.query, "cursor").value_or("")};
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
  const bool is_https = state_->options.is_tls || sent_scheme == "https";
  const std::string_view scheme = is_https ? "https" : "http";
  return {"Link", cat('<', scheme, "://", host, request_.path, '?', kept,
                      "cursor=", encode_segment(last), ">; rel=\"next\"")};
}

void HubServer::Call::send_page(HubPage page) {
  std::vector<HttpHeader> headers;
  if (page.next) headers.push_back(next_link(*page.next));
  // A list of repos has no revision of its own.
  send_json(std::move(page.body), !repo_.id.empty() && asks_for_commit(), std::move(headers));
}

void HubServer::Call::send_json(std::string json, bool is_fixed, std::vector<HttpHeader> headers) {
  headers.push_back({"Content-Type", "application/json; charset=utf-8"});
  headers.push_back(cache_control(is_fixed));
  reply_({.headers = std::move(headers), .body = std::move(json)});
}

void HubServer::Call::fail(int status, const char* code, const std::string& message,
                           std::vector<HttpHeader> headers) {
  // Names from the request are in the message; a header holds plain text only.
  std::string plain = message;
  for (char& letter : plain)
    if (letter < 32 || letter == 127) letter = '?';
  if (*code != '\0') headers.push_back({"X-Error-Code", code});
  headers.push_back({"X-Error-Message", plain});
  headers.push_back({"Cache-Control", "no-store"});
  headers.push_back(
      {"Content-Type", is_api_ ? "application/json; charset=utf-8" : "text/plain; charset=utf-8"});
  reply_({.status = status,
          .headers = std::move(headers),
          .body = is_api_ ? hub_error_json(message) : message});
}

void HubServer::Call::fail_not_found_repo() {
  // Hubs ask a stranger to log in.  Where that would change nothing they are told at once: over
  // plain http huggingface_hub knows an absent repo by its code alone.
  if (!state_->options.access || !token_of(request_).empty())
    return fail(404, "RepoNotFound", "Repository not found");
  fail(401, "", "Invalid username or password.",
       {{"WWW-Authenticate", "Bearer realm=\"Authentication required\", charset=\"UTF-8\""}});
}

void HubServer::Call::fail_content(const Error& error) {
  log_warn("hub: " + error.with(repo_.id).message);
  HttpServerResponse failure = hub_failure(error);
  if (is_api_) {
    failure.body = hub_error_json(std::get<std::string>(failure.body));
    for (HttpHeader& header : failure.headers)
      if (header.name == "Content-Type") header.value = "application/json; charset=utf-8";
  }
  reply_(std::move(failure));
}

}  // namespace cake
