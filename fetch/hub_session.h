// Asking a hub for metadata: token, redirects, retries, errors.  Shared by all calls of
// HubUpstream.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "fetch/credentials.h"
#include "fetch/http.h"
#include "fetch/hub_parse.h"
#include "fetch/once_done.h"
#include "fetch/pace.h"
#include "fetch/retry.h"
#include "fetch/upstream.h"
#include "fetch/url.h"
#include "store/base/metrics.h"

namespace cake {

struct HubOptions {
  Url endpoint;  // of parse_endpoint
  BackoffOptions backoff;
  // Somebody waits at a terminal: a question that goes on failing is told once, while it is
  // retried.
  bool tells_retries = false;
};

// Calls under way keep it alive, so nobody waits for them; `http` and `metrics` outlive them all.
// Thread-safe.
class HubSession : public std::enable_shared_from_this<HubSession> {
 public:
  HubSession(HttpClient& http, HubOptions options, std::shared_ptr<const Credentials> credentials,
             Metrics& metrics);

  const Url& endpoint() const { return options_.endpoint; }
  HttpClient& http() { return http_; }

  // endpoint + `path` ("/api/..."), with `query`.
  Url url(std::string path, std::string query = "") const;

  // A redirect's or link's target as seen from `page`.  A mirror's answers may name
  // https://huggingface.co: that is us, unless it is where `page` points anyway.
  // Errors: upstream, when malformed or from https to http.
  Result<Url> target(const Url& page, std::string_view reference) const;

  // Adds the token, if `url` is the hub's.  Answers the token sent ("" for none).
  Result<std::string> authorize(const Url& url, std::vector<HttpHeader>& headers) const;

  HubQuestion question(const RepoName& repo, std::string what) const;

  // GET of a whole 2xx answer that `check` accepts.  Transient failures are asked again until the
  // deadline; nonsense (redirects without end, what `check` refuses) is twice, for it may come from
  // something between us and the hub, and then is the answer.
  struct Answer {
    HttpAnswer http;
    Url url;  // after redirects
  };
  using Check = std::function<Status(const Answer&)>;
  void get(Url url, HubQuestion question, Deadline deadline, Check check, Done<Answer> done);

  // How fast the hub and its storage hosts want to be asked.
  Paces& paces() { return paces_; }

  // Runs `task` after `delay`, or earlier with an Error when the deadline ends the wait.
  void wait(Millis delay, Deadline deadline, Done<void> task);

 private:
  struct Get;  // a call of get under way
  void send(std::shared_ptr<Get> call);
  void transmit(std::shared_ptr<Get> call);
  void take(std::shared_ptr<Get> call, Result<HttpAnswer> result);
  void doubt(std::shared_ptr<Get> call, Error error);
  void follow(std::shared_ptr<Get> call, const HttpAnswer& answer);
  void retry(std::shared_ptr<Get> call, Error error, std::optional<Millis> asked);
  void wait_until(SteadyTime until, Deadline deadline, OnceDone<void> task);

  // Constant after construction.
  HttpClient& http_;  // outlives this
  const std::shared_ptr<const Credentials> credentials_;
  const HubOptions options_;
  Counter& retries_made_;
  Paces paces_;  // synchronises itself
};

}  // namespace cake
