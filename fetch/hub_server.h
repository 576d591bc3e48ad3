// The hub's HTTP protocol over any content: what `cake serve` and the test hub speak.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "fetch/http_server.h"
#include "fetch/hub_content.h"

namespace cake {

// What a caller may do with a repo.
enum class HubAccess {
  open,
  bad_token,  // 401 everywhere
  hidden,     // private: as if it were not there
  gated,      // listed with masked hashes; its files want a login (401) or permission (403)
  disabled,   // 403
};

// How resolve answers for a file.
enum class HubShape {
  direct,         // 200 or 206 with the bytes
  resolve_cache,  // 307 to /api/resolve-cache, as hubs do for plain files
  cdn,            // 302 to a signed URL elsewhere, as hubs do for LFS files
};

struct HubServerOptions {
  // Absent: everything is open to everyone, and answered directly.
  std::function<HubAccess(const RepoName&, std::string_view token)> access;
  std::function<HubShape(const RepoName&, const TreeEntry&)> shape;
  // Absolute URL of a file, for the shape `cdn`.
  std::function<std::string(const RepoName&, const std::string& commit, const TreeEntry&)> cdn_url;
  size_t page_limit = 1'000;  // entries of a page of tree, most and default
  // Files of a branch are answered with a redirect to their URL at the commit, whose answer never
  // changes: what caches in front can keep.
  bool pins_commits = false;
  // Answers depend on the caller's token: no shared cache may keep them.
  bool is_private = false;
  bool is_tls = false;  // links lead to https
};

// Thread-safe.
class HubServer {
 public:
  // `content` outlives this and every call of `handle`: it answers them all before it is gone.
  HubServer(HubContent& content, HubServerOptions options);
  ~HubServer();

  using Reply = std::function<void(HttpServerResponse)>;
  // Calls `reply` once, now or later on a thread of the content's; never blocks on hashing.
  void handle(const HttpServerRequest& request, Reply reply) const;

  // The token of "Authorization: Bearer T", or empty.
  static std::string_view token_of(const HttpServerRequest& request);

 private:
  class Call;
  // Shared with calls that are answered later, which may outlive this.
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace cake
