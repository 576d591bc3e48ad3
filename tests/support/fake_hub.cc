#include "tests/support/fake_hub.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <random>

#include "fetch/hub_folder.h"
#include "fetch/url.h"
#include "store/base/digest.h"
#include "tests/support/fake_body.h"

namespace cake {

namespace {

// A thousand stalled connections want a thousand descriptors, and the client's as many.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  CAKE_CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

std::string classify(const std::string& path) {
  if (path.starts_with("/api/resolve-cache/")) return "resolve-cache";
  if (path.find("/resolve/") != std::string::npos && !path.starts_with("/api/")) return "resolve";
  if (!path.starts_with("/api/")) return "other";
  for (const char* word : {"tree", "refs", "paths-info", "commits"})
    if (path.find(cat('/', word, '/')) != std::string::npos || path.ends_with(cat('/', word)))
      return word;
  const bool is_list = std::count(path.begin(), path.end(), '/') == 2;
  return is_list ? "list" : "info";
}

HttpHeader* find_header(std::vector<HttpHeader>& headers, std::string_view name) {
  for (HttpHeader& header : headers)
    if (header.name == name) return &header;
  return nullptr;
}

}  // namespace

bool matches_glob(std::string_view glob, std::string_view text) {
  if (glob.empty()) return text.empty();
  if (glob.front() == '*') {
    for (size_t skip = 0; skip <= text.size(); skip++)
      if (matches_glob(glob.substr(1), text.substr(skip))) return true;
    return false;
  }
  return !text.empty() && (glob.front() == '?' || glob.front() == text.front()) &&
         matches_glob(glob.substr(1), text.substr(1));
}

std::optional<Fault::Kind> parse_fault_kind(std::string_view name) {
  using Kind = Fault::Kind;
  static const std::map<std::string_view, Kind> kNames = {
      {"drop", Kind::drop},
      {"reset", Kind::reset},
      {"black_hole", Kind::black_hole},
      {"slow_headers", Kind::slow_headers},
      {"status", Kind::status},
      {"cut_body", Kind::cut_body},
      {"reset_body", Kind::reset_body},
      {"stall_body", Kind::stall_body},
      {"ignore_range", Kind::ignore_range},
      {"wrong_content_range", Kind::wrong_content_range},
      {"wrong_bytes", Kind::wrong_bytes},
      {"wrong_length", Kind::wrong_length},
      {"changed_etag", Kind::changed_etag},
      {"redirect_loop", Kind::redirect_loop},
      {"redirect_elsewhere", Kind::redirect_elsewhere},
      {"gzip", Kind::gzip},
  };
  const auto found = kNames.find(name);
  return found == kNames.end() ? std::nullopt : std::optional(found->second);
}

struct FakeHub::Site {
  using Answer = std::function<void(const HttpServerRequest&, HubServer::Reply)>;

  explicit Site(FakeHubOptions wanted) : options(std::move(wanted)), shape(options.shape) {}

  const FakeHubOptions options;
  FakeHub* hub = nullptr;
  std::unique_ptr<HubFolder> folder;
  std::unique_ptr<MemoryHub> memory;
  std::unique_ptr<HubServer> protocol;
  std::atomic<uint16_t> port{0}, cdn_port{0};
  std::atomic<FakeShape> shape;
  std::atomic<int64_t> latency_ms{0}, url_lifetime_ms{3'600'000}, url_generation{0};
  Link link;  // the whole link's rate
  std::atomic<uint64_t> connection_rate{0};
  std::atomic<uint64_t> releases{0};  // how often release_stalled was called
  std::atomic<unsigned> stalled{0};

  // Guarded by mutex.  Leaf lock.
  mutable Mutex mutex;
  std::map<std::string, HubFile> plain GUARDED_BY(mutex);  // by URL path
  std::map<std::string, std::set<std::string>> tokens GUARDED_BY(mutex);
  std::map<std::string, HubAccess> verdicts GUARDED_BY(mutex);
  std::map<uint64_t, Fault> faults GUARDED_BY(mutex);
  uint64_t next_fault GUARDED_BY(mutex) = 1;
  std::mt19937_64 random GUARDED_BY(mutex){20'240'229};
  FakeHubCounters counters GUARDED_BY(mutex);
  std::vector<std::function<void()>> held GUARDED_BY(mutex);

  void on_hub(const HttpServerRequest& request, HttpResponder responder);
  void on_cdn(const HttpServerRequest& request, HttpResponder responder);
  void go(const HttpServerRequest& request, const HttpResponder& responder,
          const std::string& endpoint, const Answer& answer);
  std::optional<Fault> take_fault(const std::string& endpoint, const std::string& path)
      EXCLUDES(mutex);
  void finish(HttpServerResponse response, const std::optional<Fault>& fault,
              const HttpServerRequest& request, const std::string& endpoint,
              const HttpResponder& responder);
  void answer_plain(const HttpServerRequest& request, const HubServer::Reply& reply)
      EXCLUDES(mutex);
  void answer_cdn(const HttpServerRequest& request, HubServer::Reply reply);
  std::string sign(const std::string& path, const std::string& expires) const;
  std::string signed_url(const RepoName& repo, const std::string& commit, const TreeEntry& entry);
  HubAccess access(const RepoName& repo, std::string_view token) const EXCLUDES(mutex);
  HubShape shape_of(const TreeEntry& entry) const;
};

// --- One request ----------------------------------------------------------------------

void FakeHub::Site::on_hub(const HttpServerRequest& request, HttpResponder responder) {
  if (request.path == "/_control") return responder.send(control(*hub, request.query));
  const std::string path = decode_uri_part(request.path).value_or(request.path);
  bool is_plain = false;
  {
    MutexLock lock(mutex);
    is_plain = plain.contains(path);
  }
  if (is_plain)
    return go(request, responder, "plain",
              [this](const HttpServerRequest& asked, const HubServer::Reply& reply) {
                answer_plain(asked, reply);
              });
  go(request, responder, classify(path),
     [this](const HttpServerRequest& asked, HubServer::Reply reply) {
       protocol->handle(asked, std::move(reply));
     });
}

void FakeHub::Site::on_cdn(const HttpServerRequest& request, HttpResponder responder) {
  go(request, responder, "cdn", [this](const HttpServerRequest& asked, HubServer::Reply reply) {
    answer_cdn(asked, std::move(reply));
  });
}

std::optional<Fault> FakeHub::Site::take_fault(const std::string& endpoint,
                                               const std::string& path) {
  MutexLock lock(mutex);
  counters.requests++;
  counters.requests_by_endpoint[endpoint]++;
  counters.requests_by_path[path]++;
  for (auto& [id, fault] : faults) {
    const bool is_meant =
        fault.count > 0 && matches_glob(fault.endpoint, endpoint) && matches_glob(fault.path, path);
    if (!is_meant || std::uniform_real_distribution<>(0, 1)(random) >= fault.probability) continue;
    if (fault.count != UINT64_MAX) fault.count--;
    counters.faults++;
    return fault;
  }
  return std::nullopt;
}

void FakeHub::Site::go(const HttpServerRequest& request, const HttpResponder& responder,
                       const std::string& endpoint, const Answer& answer) {
  using Kind = Fault::Kind;
  const std::string path = decode_uri_part(request.path).value_or(request.path);
  const std::optional<Fault> fault = take_fault(endpoint, path);
  HttpServerRequest asked = request;
  if (fault && fault->kind == Kind::ignore_range)
    std::erase_if(asked.headers, [](const HttpHeader& header) { return header.name == "range"; });
  const auto proceed = [=, this] {
    answer(asked, [=, this](HttpServerResponse response) {
      finish(std::move(response), fault, asked, endpoint, responder);
    });
  };
  Millis delay{latency_ms.load()};
  if (fault && fault->kind == Kind::drop) return responder.drop(false);
  if (fault && fault->kind == Kind::reset) return responder.drop(true);
  if (fault && fault->kind == Kind::black_hole) {
    stalled++;
    MutexLock lock(mutex);
    held.push_back(proceed);
    return;
  }
  if (fault && fault->kind == Kind::slow_headers) delay += fault->delay;
  if (delay.count() > 0) return responder.after(delay, proceed);
  proceed();
}

void FakeHub::Site::finish(HttpServerResponse response, const std::optional<Fault>& fault,
                           const HttpServerRequest& request, const std::string& endpoint,
                           const HttpResponder& responder) {
  using Kind = Fault::Kind;
  std::string path = decode_uri_part(request.path).value_or(request.path);
  if (fault) {
    const std::string self = request.path + (request.query.empty() ? "" : "?" + request.query);
    if (fault->kind == Kind::status)
      response = {.status = fault->status, .headers = fault->headers, .body = fault->body};
    if (fault->kind == Kind::redirect_loop)
      response = {.status = 307, .headers = {{"Location", self}}, .body = ""};
    if (fault->kind == Kind::redirect_elsewhere)
      response = {.status = 302, .headers = {{"Location", fault->location}}, .body = ""};
    if (fault->kind == Kind::changed_etag)
      for (const char* name : {"ETag", "X-Linked-Etag"})
        if (HttpHeader* header = find_header(response.headers, name))
          header->value = cat('"', file_hash_hex(FileHash::sha256, as_bytes(header->value)), '"');
    if (fault->kind == Kind::wrong_content_range) shift_content_range(response.headers);
    if (fault->kind == Kind::gzip) {
      response.headers.push_back({"Content-Encoding", "gzip"});
      std::erase_if(response.headers,
                    [](const HttpHeader& header) { return header.name == "Accept-Ranges"; });
    }
  }
  BodyTrouble trouble;
  if (fault && fault->kind == Kind::cut_body) trouble.cut_at = fault->after_bytes;
  if (fault && fault->kind == Kind::reset_body) {
    trouble.cut_at = fault->after_bytes;
    trouble.is_reset = true;
  }
  if (fault && fault->kind == Kind::stall_body) trouble.stall_at = fault->after_bytes;
  if (fault && fault->kind == Kind::wrong_bytes) trouble.flip_at = fault->after_bytes;
  trouble.is_short = fault && fault->kind == Kind::wrong_length;
  trouble.is_gzip = fault && fault->kind == Kind::gzip;
  trouble.link = &link;
  trouble.own_link = std::make_shared<Link>();
  trouble.own_link->rate = connection_rate.load();
  trouble.releases = &releases;
  trouble.stalled = &stalled;
  trouble.on_sent = [this, endpoint, path](uint64_t bytes) {
    MutexLock lock(mutex);
    counters.bytes_sent += bytes;
    counters.bytes_by_endpoint[endpoint] += bytes;
    counters.bytes_by_path[path] += bytes;
  };
  if (request.method != "HEAD") response.body = troubled_body(std::move(response.body), trouble);
  responder.send(std::move(response));
}

void FakeHub::Site::answer_plain(const HttpServerRequest& request, const HubServer::Reply& reply) {
  std::optional<HubFile> file;
  {
    MutexLock lock(mutex);
    const auto found = plain.find(decode_uri_part(request.path).value_or(request.path));
    if (found != plain.end()) file = found->second;
  }
  if (!file) return reply({.status = 404, .body = ""});
  reply(HubServer::file_response(request, *file, cat('"', file->entry.ids.sha256, '"'), {}));
}

// --- The CDN --------------------------------------------------------------------------

std::string FakeHub::Site::sign(const std::string& path, const std::string& expires) const {
  return file_hash_hex(FileHash::sha256,
                       as_bytes(cat(url_generation.load(), ' ', path, ' ', expires)));
}

std::string FakeHub::Site::signed_url(const RepoName& repo, const std::string& commit,
                                      const TreeEntry& entry) {
  const std::string path = cat("/cdn/", repo_type_plural(repo.type), '/', encode_segment(repo.id),
                               '/', commit, '/', encode_path(entry.path));
  // In milliseconds, so that tests need not wait for a second; real ones count seconds.
  const auto now =
      std::chrono::duration_cast<Millis>(std::chrono::system_clock::now().time_since_epoch());
  const std::string expires = std::to_string(now.count() + url_lifetime_ms.load());
  return cat("http://localhost:", cdn_port.load(), path, "?ExpiresMs=", expires,
             "&Signature=", sign(path, expires));
}

void FakeHub::Site::answer_cdn(const HttpServerRequest& request, HubServer::Reply reply) {
  const auto refuse = [&](const char* why) { reply({.status = 403, .body = why}); };
  if (!request.find("authorization").empty()) {
    MutexLock lock(mutex);
    counters.authorization_at_cdn++;
    return reply({.status = 400, .body = "Only one auth mechanism allowed"});
  }
  // A signature binds the method.
  if (request.method != "GET") return refuse("SignatureDoesNotMatch");
  const std::string expires = find_query(request.query, "ExpiresMs").value_or("");
  if (find_query(request.query, "Signature") != sign(request.path, expires))
    return refuse("SignatureDoesNotMatch");
  const auto now =
      std::chrono::duration_cast<Millis>(std::chrono::system_clock::now().time_since_epoch());
  if (std::stoll(expires) <= now.count()) return refuse("Request has expired");
  // /cdn/TYPE/ID/COMMIT/PATH, signed by us, so it parses.
  std::vector<std::string> parts;
  std::string_view rest = std::string_view(request.path).substr(1);
  while (parts.size() < 4) {
    const size_t slash = rest.find('/');
    parts.push_back(decode_uri_part(rest.substr(0, slash)).value_or(""));
    rest = rest.substr(slash + 1);
  }
  RepoName repo{RepoType::model, parts[2]};
  for (const RepoType type : {RepoType::dataset, RepoType::space})
    if (repo_type_plural(type) == parts[1]) repo.type = type;
  const std::string path = decode_uri_part(rest).value_or("");
  memory->get_revision(repo, parts[3], [request, reply, path](Result<HubRevisionPtr> revision) {
    const HubFile* file = revision ? (*revision)->find(path) : nullptr;
    if (file == nullptr) return reply({.status = 404, .body = "NoSuchKey"});
    // As real ones: an ETag that is not the sha256.
    const std::string etag =
        file_hash_hex(FileHash::sha256, as_bytes("xet " + file->entry.ids.sha256));
    reply(HubServer::file_response(request, *file, cat('"', etag, '"'),
                                   {{"Content-Type", "application/octet-stream"}}));
  });
}

// --- Who may, and how -------------------------------------------------------------------

HubAccess FakeHub::Site::access(const RepoName& repo, std::string_view token) const {
  MutexLock lock(mutex);
  if (!token.empty() && !tokens.empty()) {
    const auto known = tokens.find(std::string(token));
    if (known == tokens.end()) return HubAccess::bad_token;
    if (known->second.contains(repo.id) || known->second.contains("*")) return HubAccess::open;
  }
  const auto verdict = verdicts.find(repo.id);
  return verdict == verdicts.end() ? HubAccess::open : verdict->second;
}

HubShape FakeHub::Site::shape_of(const TreeEntry& entry) const {
  switch (shape.load()) {
    case FakeShape::direct:
      return HubShape::direct;
    case FakeShape::cached:
      return HubShape::resolve_cache;
    case FakeShape::cdn:
      return HubShape::cdn;
    case FakeShape::hub:
      break;
  }
  if (!entry.ids.sha256.empty()) return HubShape::cdn;
  return entry.bytes == 0 ? HubShape::direct : HubShape::resolve_cache;
}

// --- The hub ----------------------------------------------------------------------------

FakeHub::FakeHub(FakeHubOptions options) : site_(std::make_unique<Site>(std::move(options))) {
  raise_descriptor_limit();
  Site& site = *site_;
  site.hub = this;
  if (!site.options.directory.empty()) {
    auto folder = HubFolder::open({.directory = site.options.directory, .rescan = Millis(0)});
    CAKE_CHECK(folder.ok());
    site.folder = std::move(*folder);
  }
  site.memory = std::make_unique<MemoryHub>(site.folder.get());
  HubServerOptions protocol;
  protocol.page_limit = site.options.page_limit;
  protocol.access = [&site](const RepoName& repo, std::string_view token) {
    return site.access(repo, token);
  };
  protocol.shape = [&site](const RepoName&, const TreeEntry& entry) {
    return site.shape_of(entry);
  };
  protocol.cdn_url = [&site](const RepoName& repo, const std::string& commit,
                             const TreeEntry& entry) {
    return site.signed_url(repo, commit, entry);
  };
  site.protocol = std::make_unique<HubServer>(*site.memory, std::move(protocol));
  site.port = site.options.port;
  site.cdn_port = site.options.cdn_port;
  if (!site.options.starts_silent) start_servers();
}

FakeHub::~FakeHub() {
  clear_faults();
  stop_listening();
  // Held answers hold responders; they go before what they would use.
  std::vector<std::function<void()>> held;
  MutexLock lock(site_->mutex);
  held.swap(site_->held);
}

void FakeHub::start_servers() {
  Site& site = *site_;
  const auto start = [&](uint16_t port, auto handler) {
    HttpServerOptions options;
    options.listen = cat("127.0.0.1:", port);
    options.max_conns = site.options.max_conns;
    auto server = HttpServer::start(std::move(options), handler);
    if (!server) check_failed(server.error().message.c_str(), __FILE__, __LINE__);
    return std::move(*server);
  };
  MutexLock lock(servers_mutex_);
  CAKE_CHECK(!hub_server_);
  hub_server_ =
      start(site.port, [&site](const HttpServerRequest& request, HttpResponder responder) {
        site.on_hub(request, std::move(responder));
      });
  cdn_server_ =
      start(site.cdn_port, [&site](const HttpServerRequest& request, HttpResponder responder) {
        site.on_cdn(request, std::move(responder));
      });
  site.port = hub_server_->port();
  site.cdn_port = cdn_server_->port();
}

void FakeHub::start_listening() {
  start_servers();
}

void FakeHub::stop_listening() {
  std::unique_ptr<HttpServer> hub, cdn;
  {
    MutexLock lock(servers_mutex_);
    hub = std::move(hub_server_);
    cdn = std::move(cdn_server_);
    if (hub) accepted_before_ += hub->accepted() + cdn->accepted();
  }
}

std::string FakeHub::url() const {
  return cat("http://127.0.0.1:", site_->port.load());
}
std::string FakeHub::cdn_url() const {
  return cat("http://localhost:", site_->cdn_port.load());
}
MemoryHub& FakeHub::content() {
  return *site_->memory;
}

RepoName parse_repo(const std::string& name) {
  for (const RepoType type : {RepoType::dataset, RepoType::space}) {
    const std::string prefix = cat(repo_type_plural(type), "/");
    if (name.starts_with(prefix)) return {type, name.substr(prefix.size())};
  }
  return {RepoType::model, name};
}

void FakeHub::add(const std::string& repo, const std::string& path, Buffer bytes,
                  const std::string& revision) {
  content().add_bytes(parse_repo(repo), revision, path, std::move(bytes));
}
void FakeHub::add_pattern(const std::string& repo, const std::string& path, uint64_t bytes,
                          uint64_t seed, const std::string& revision) {
  content().add_pattern(parse_repo(repo), revision, path, bytes, seed);
}

std::string FakeHub::commit(const std::string& repo, const std::string& revision) {
  std::string out;
  // Repos in memory answer before the call returns.
  content().get_revision(parse_repo(repo), revision, [&out](Result<HubRevisionPtr> found) {
    if (found) out = (*found)->commit;
  });
  return out;
}

void FakeHub::serve(const std::string& path, Buffer bytes) {
  const std::string hash = file_hash_hex(FileHash::sha256, bytes);
  const uint64_t length = bytes.size();
  auto shared = std::make_shared<const Buffer>(std::move(bytes));
  HubFile file{{path, length, {"", hash, ""}}, [shared](ByteRange range) -> Result<HttpBody> {
                 return HttpBody(
                     std::string(as_text(ByteSpan(*shared).subspan(range.offset, range.length))));
               }};
  MutexLock lock(site_->mutex);
  site_->plain["/" + path] = std::move(file);
}

void FakeHub::add_token(const std::string& token, std::set<std::string> repos) {
  MutexLock lock(site_->mutex);
  site_->tokens[token] = std::move(repos);
}
void FakeHub::set_access(const std::string& repo, HubAccess access) {
  MutexLock lock(site_->mutex);
  site_->verdicts[repo] = access;
}
void FakeHub::set_shape(FakeShape shape) {
  site_->shape = shape;
}
void FakeHub::set_url_lifetime(Millis lifetime) {
  site_->url_lifetime_ms = lifetime.count();
}
void FakeHub::expire_urls() {
  site_->url_generation++;
}

uint64_t FakeHub::set_fault(Fault fault) {
  MutexLock lock(site_->mutex);
  const uint64_t id = site_->next_fault++;
  site_->faults[id] = std::move(fault);
  return id;
}
void FakeHub::clear_fault(uint64_t id) {
  MutexLock lock(site_->mutex);
  site_->faults.erase(id);
}
void FakeHub::clear_faults() {
  MutexLock lock(site_->mutex);
  site_->faults.clear();
}

void FakeHub::release_stalled() {
  std::vector<std::function<void()>> held;
  {
    MutexLock lock(site_->mutex);
    held.swap(site_->held);
  }
  site_->stalled -= static_cast<unsigned>(held.size());
  site_->releases++;
  for (const auto& proceed : held) proceed();
  MutexLock lock(servers_mutex_);
  if (hub_server_) hub_server_->wake();
  if (cdn_server_) cdn_server_->wake();
}

void FakeHub::set_latency(Millis latency) {
  site_->latency_ms = latency.count();
}
void FakeHub::set_rates(uint64_t total_bytes_per_s, uint64_t connection_bytes_per_s) {
  site_->link.rate = total_bytes_per_s;
  site_->connection_rate = connection_bytes_per_s;
}

FakeHubCounters FakeHub::counters() const {
  FakeHubCounters out;
  {
    MutexLock lock(site_->mutex);
    out = site_->counters;
  }
  MutexLock lock(servers_mutex_);
  out.connections = accepted_before_;
  if (hub_server_) out.connections += hub_server_->accepted();
  if (cdn_server_) out.connections += cdn_server_->accepted();
  return out;
}

void FakeHub::reset_counters() {
  {
    MutexLock lock(site_->mutex);
    site_->counters = {};
  }
  MutexLock lock(servers_mutex_);
  accepted_before_ = 0;
  if (hub_server_) accepted_before_ -= hub_server_->accepted();
  if (cdn_server_) accepted_before_ -= cdn_server_->accepted();
}

unsigned FakeHub::stalled() const {
  return site_->stalled;
}

}  // namespace cake
