#include "fetch/hub_session.h"

#include <algorithm>
#include <random>

#include "store/base/log.h"

namespace cake {
namespace {

// A page of a tree that no paging cuts: half a million files.
constexpr uint64_t kMaxAnswerBytes = 64 * kMiB;
constexpr unsigned kMaxDoubts = 3;     // answers that make no sense, of one call
constexpr unsigned kToldFailures = 4;  // after half a second or so
constexpr char kPace[] = "api";
constexpr Millis kWaitSlice{100};  // how soon a waiting call sees that it was cancelled

uint64_t random_number() {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return generator();
}

}  // namespace

struct HubSession::Get {
  Url first_url;  // a retry starts here
  Url url;
  HubQuestion question;
  Deadline deadline;
  Check check;
  OnceDone<Answer> done;
  unsigned redirects = 0;
  unsigned failures = 0;
  unsigned doubts = 0;
  bool is_away = false;  // a redirect has left the hub: no token any more
};

HubSession::HubSession(HttpClient& http, HubOptions options,
                       std::shared_ptr<const Credentials> credentials, Metrics& metrics)
    : http_(http),
      credentials_(std::move(credentials)),
      options_(std::move(options)),
      retries_made_(metrics.counter("fetch.retries_made")) {}

Url HubSession::url(std::string path, std::string query) const {
  Url url = options_.endpoint;
  url.path += path;
  url.query = std::move(query);
  return url;
}

Result<Url> HubSession::target(const Url& page, std::string_view reference) const {
  Result<Url> parsed = page.resolve(reference);
  if (!parsed) return Error{Errc::upstream, "bad redirect or link: " + parsed.error().message};
  Url url = *std::move(parsed);
  const bool names_default =
      url.scheme == "https" && url.host == "huggingface.co" && url.port == 443;
  if (names_default && !url.same_origin(options_.endpoint)) {
    Url ours = this->url(url.path, url.query);
    if (ours != page) url = std::move(ours);
  }
  if (page.scheme == "https" && url.scheme == "http")
    return Error{Errc::upstream, "redirect or link from https to http refused: " + url.redacted()};
  return url;
}

Result<std::string> HubSession::authorize(const Url& url, std::vector<HttpHeader>& headers) const {
  if (!url.is_of(options_.endpoint)) return std::string();
  std::string token = CAKE_TRY(credentials_->token());
  if (!token.empty()) headers.push_back({"Authorization", "Bearer " + token});
  return token;
}

HubQuestion HubSession::question(const RepoName& repo, std::string what) const {
  const std::string prefix =
      repo.type == RepoType::model ? "/" : cat("/", repo_type_plural(repo.type), "/");
  return HubQuestion{
      .what = std::move(what), .repo_page = url(prefix + encode_path(repo.id)).str(), .token = ""};
}

void HubSession::get(Url url, HubQuestion question, Deadline deadline, Check check,
                     Done<Answer> done) {
  send(std::make_shared<Get>(Get{url, url, std::move(question), std::move(deadline),
                                 std::move(check), OnceDone<Answer>(std::move(done))}));
}

void HubSession::send(std::shared_ptr<Get> call) {
  const SteadyTime now = steady_now();
  const SteadyTime turn = paces_.take_turn(kPace);
  if (turn <= now) return transmit(std::move(call));
  if (turn >= call->deadline.at())
    return call->done(
        Error{Errc::rate_limited, call->question.what + ": the hub asked us to wait longer"});
  wait(std::chrono::ceil<Millis>(turn - now), call->deadline,
       [this, self = shared_from_this(), call](Status status) {
         if (!status) return call->done(status.error().with(call->question.what));
         transmit(call);
       });
}

void HubSession::transmit(std::shared_ptr<Get> call) {
  HttpRequest request;
  request.url = call->url.str();
  request.deadline = call->deadline;
  call->question.token.clear();
  if (!call->is_away) {
    Result<std::string> token = authorize(call->url, request.headers);
    if (!token) return call->done(std::move(token).error().with(call->question.what));
    call->question.token = *std::move(token);
  }
  http_get(http_, std::move(request), kMaxAnswerBytes,
           [this, self = shared_from_this(), call](Result<HttpAnswer> result) {
             take(call, std::move(result));
           });
}

void HubSession::take(std::shared_ptr<Get> call, Result<HttpAnswer> result) {
  if (!result) {
    Error error = result.error().with(call->question.what);
    if (!is_transient(error.code) || call->deadline.has_passed()) return call->done(error);
    return retry(call, std::move(error), std::nullopt);
  }
  const int status = result->head.status;
  if (!call->is_away) paces_.note(kPace, result->head);
  if (status >= 200 && status < 300) {
    Answer answer{*std::move(result), call->url};
    if (Status checked = call->check(answer); !checked)
      return doubt(call, checked.error().with(call->question.what));
    return call->done(std::move(answer));
  }
  if (result->head.is_redirect()) return follow(call, *result);
  const HubFailure failure = parse_failure(result->head, result->body);
  Error error = failure_error(failure, call->question);
  if (!is_transient_status(status)) {
    const bool is_unserved = status == 404 || status == 405 || status == 501;
    if (call->question.is_optional && is_unserved && error.code == Errc::upstream)
      error.code = Errc::unsupported;
    return call->done(std::move(error));
  }
  retry(call, std::move(error), asked_delay(result->head, unix_now()));
}

void HubSession::follow(std::shared_ptr<Get> call, const HttpAnswer& answer) {
  const std::string_view location = answer.head.find("location");
  if (location.empty() || ++call->redirects > kMaxRedirects) {
    Error error{Errc::upstream, call->question.what + ": redirected without end"};
    return doubt(std::move(call), std::move(error));
  }
  Result<Url> next = target(call->url, location);
  if (!next) return doubt(call, next.error().with(call->question.what));
  call->url = *std::move(next);
  call->is_away = call->is_away || !call->url.is_of(options_.endpoint);
  send(std::move(call));
}

void HubSession::doubt(std::shared_ptr<Get> call, Error error) {
  if (++call->doubts == kMaxDoubts || !is_transient(error.code))
    return call->done(std::move(error));
  retry(std::move(call), std::move(error), std::nullopt);
}

void HubSession::retry(std::shared_ptr<Get> call, Error error, std::optional<Millis> asked) {
  const Millis own = backoff_delay(options_.backoff, ++call->failures, random_number());
  const Millis delay = std::max(own, asked.value_or(own));
  // The last error says more than "deadline passed".
  if (steady_now() + delay >= call->deadline.at()) return call->done(std::move(error));
  retries_made_.add();
  if (options_.tells_retries && call->failures == kToldFailures) {
    const auto left = std::chrono::ceil<std::chrono::seconds>(call->deadline.at() - steady_now());
    log_warn(cat(error.message, "; trying again for ", left.count(), " s"));
  }
  call->url = call->first_url;
  call->is_away = false;
  call->redirects = 0;
  wait(delay, call->deadline,
       [this, self = shared_from_this(), call, error = std::move(error)](Status status) {
         // On a busy machine the timer may fire when the deadline is over.
         if (!status && status.error().code == Errc::timeout) return call->done(error);
         if (!status) return call->done(status.error().with(error.message));
         send(call);
       });
}

void HubSession::wait(Millis delay, Deadline deadline, Done<void> task) {
  wait_until(steady_now() + delay, std::move(deadline), OnceDone<void>(std::move(task)));
}

void HubSession::wait_until(SteadyTime until, Deadline deadline, OnceDone<void> task) {
  if (Status status = deadline.check(); !status) return task(std::move(status));
  const SteadyTime now = steady_now();
  if (now >= until) return task({});
  const Millis slice =
      std::min(kWaitSlice, std::max(Millis(1), std::chrono::ceil<Millis>(until - now)));
  http_.after(slice, [this, self = shared_from_this(), until, deadline = std::move(deadline),
                      task = std::move(task)] { wait_until(until, deadline, task); });
}

}  // namespace cake
