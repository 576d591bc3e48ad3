// A hub for tests: it serves, and it fails, stalls, truncates and lies on command.
//
// Two servers: the hub (127.0.0.1) and, as a different host, its CDN (localhost, another port).
// Everything can be switched while requests are under way.  README.md lists the knobs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fetch/http_server.h"
#include "fetch/hub_server.h"
#include "store/base/mutex.h"
#include "tests/support/memory_hub.h"

namespace cake {

// What goes wrong, where, how often.  Of several that match a request the oldest is taken.
struct Fault {
  enum class Kind {
    drop,                 // close the connection without an answer
    reset,                // the same with a TCP reset
    black_hole,           // no byte of an answer until release_stalled
    slow_headers,         // the answer begins after `delay`
    status,               // `status` with `headers` (Retry-After, RateLimit) and `body`
    cut_body,             // close after `after_bytes` of the body
    reset_body,           // reset after `after_bytes` of the body
    stall_body,           // nothing more after `after_bytes`, until release_stalled
    ignore_range,         // 200 and everything
    wrong_content_range,  // a range one byte further on than asked
    wrong_bytes,          // the byte at `after_bytes` of the body flipped
    wrong_length,         // the body one byte short, consistently
    changed_etag,         // ETag and X-Linked-Etag of another content
    redirect_loop,        // 307 to itself
    redirect_elsewhere,   // 302 to `location`
    gzip,                 // Content-Encoding: gzip, whatever was accepted
  };
  Kind kind = Kind::status;
  // list, info, tree, refs, paths-info, commits, resolve, resolve-cache, cdn, plain, other, or "*".
  std::string endpoint = "*";
  std::string path = "*";  // glob over the decoded path of the URL; '*' matches slashes too
  double probability = 1;
  uint64_t count = UINT64_MAX;  // how many requests it takes
  uint64_t after_bytes = 0;
  int status = 503;
  Millis delay{0};
  std::string location;
  std::vector<HttpHeader> headers;
  std::string body;
};
std::optional<Fault::Kind> parse_fault_kind(std::string_view name);

struct FakeHubCounters {
  uint64_t requests = 0, bytes_sent = 0, faults = 0;
  uint64_t connections = 0;           // accepted, hub and CDN
  uint64_t authorization_at_cdn = 0;  // requests that took a token to the CDN: always a bug
  std::map<std::string, uint64_t> requests_by_endpoint, bytes_by_endpoint;
  std::map<std::string, uint64_t> requests_by_path, bytes_by_path;  // decoded paths of URLs
};

// How resolve answers.
enum class FakeShape {
  direct,  // 200 and 206
  hub,     // as hubs do: 307 for plain files, 302 to the CDN for LFS files
  cached,  // 307 for every file
  cdn,     // 302 for every file
};

struct FakeHubOptions {
  std::string directory;  // repos of this folder are served too (HubFolder); empty: none
  uint16_t port = 0, cdn_port = 0;
  FakeShape shape = FakeShape::direct;
  unsigned max_conns = 4096;
  size_t page_limit = 1'000;   // of tree and list
  bool starts_silent = false;  // until start_listening: content comes first
};

// "ORG/NAME" is a model; "datasets/ORG/NAME" and "spaces/ORG/NAME" are what they say.
RepoName parse_repo(const std::string& name);

// Thread-safe.
class FakeHub {
 public:
  explicit FakeHub(FakeHubOptions options = {});
  ~FakeHub();
  FakeHub(const FakeHub&) = delete;
  FakeHub& operator=(const FakeHub&) = delete;

  std::string url() const;      // "http://127.0.0.1:PORT"
  std::string cdn_url() const;  // "http://localhost:PORT"
  std::string url(const std::string& path) const { return url() + "/" + path; }

  // Content.  Repo ids are models; RepoName for others.
  MemoryHub& content();
  void add(const std::string& repo, const std::string& path, Buffer bytes,
           const std::string& revision = "main");
  void add_pattern(const std::string& repo, const std::string& path, uint64_t bytes,
                   uint64_t seed = 0, const std::string& revision = "main");
  std::string commit(const std::string& repo, const std::string& revision = "main");
  // A file at url(path), outside of any repo: endpoint "plain".
  void serve(const std::string& path, Buffer bytes);

  // Access.  Once there is a token, others are refused with 401; a token opens the repos named
  // ("*": all).
  void add_token(const std::string& token, std::set<std::string> repos);
  void set_access(const std::string& repo, HubAccess access);  // for who has no token for it
  void set_shape(FakeShape shape);
  void set_url_lifetime(Millis lifetime);
  void expire_urls();  // signed URLs made so far are refused with 403

  // Trouble.
  uint64_t set_fault(Fault fault);
  void clear_fault(uint64_t id);
  void clear_faults();
  void release_stalled();
  void set_latency(Millis latency);                                             // before headers
  void set_rates(uint64_t total_bytes_per_s, uint64_t connection_bytes_per_s);  // 0: no limit
  void stop_listening();   // connections are refused, those open are cut
  void start_listening();  // on the same ports

  FakeHubCounters counters() const;
  void reset_counters();
  unsigned stalled() const;  // answers and bodies that wait for release_stalled

 private:
  struct Site;
  void start_servers() EXCLUDES(servers_mutex_);

  // Constant after construction.
  const std::unique_ptr<Site> site_;  // what requests under way use; synchronises itself

  // Guarded by servers_mutex_.  Servers are ended without it: their threads may want it.
  mutable Mutex servers_mutex_;
  std::unique_ptr<HttpServer> hub_server_ GUARDED_BY(servers_mutex_);
  std::unique_ptr<HttpServer> cdn_server_ GUARDED_BY(servers_mutex_);
  uint64_t accepted_before_ GUARDED_BY(servers_mutex_) = 0;
};

// Answers /_control: the same knobs by query string, for scripts.  README.md has the words.
HttpServerResponse control(FakeHub& hub, std::string_view query);

// '*' any run of characters, '?' any one.
bool matches_glob(std::string_view glob, std::string_view text);

}  // namespace cake
