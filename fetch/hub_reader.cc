#include "fetch/hub_reader.h"

#include <algorithm>

namespace cake {
namespace {

// What is read of a body that is no file: to keep its connection, and for its message.
constexpr size_t kMaxTalkBytes = 64 * kKiB;
constexpr Millis kHubRouteLife{3'600'000};
constexpr Millis kWaitingSweep{100};

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& letter : out)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  return out;
}

// What the head says of whose bytes follow: the commit, and the content's own ETag.
struct NamedContent {
  std::string commit;
  std::string id;
};

NamedContent named_content(const HttpResponseHead& head, bool has_body) {
  std::string_view tag = head.find("x-linked-etag");
  if (tag.empty() && has_body) tag = head.find("etag");
  return {lower_case(head.find("x-repo-commit")), lower_case(bare_etag(tag))};
}

// Whether the head names the very file, so that no other page can have taken its place.
bool is_named(const FileAddress& file, const HttpResponseHead& head) {
  const NamedContent said = named_content(head, true);
  return is_commit(said.commit)
             ? said.commit == file.commit
             : !said.id.empty() && (said.id == file.ids.sha256 || said.id == file.ids.git_oid);
}

// Whether what the hub says about a file is about the one we know.
Status check_identity(const FileAddress& file, const HttpResponseHead& head, bool has_body) {
  const auto differs = [](std::string_view known, std::string_view said, size_t digits) {
    return !known.empty() && is_hex(said, digits) && said != known;
  };
  const auto [commit, id] = named_content(head, has_body);
  if (differs(file.commit, commit, 40))
    return Error{Errc::upstream, "the hub answers for commit " + commit};
  if (differs(file.ids.sha256, id, 64) ||
      (file.ids.sha256.empty() && differs(file.ids.git_oid, id, 40)))
    return Error{Errc::upstream, "the hub names another content: " + id};
  if (differs(file.ids.xet, lower_case(head.find("x-xet-hash")), 64))
    return Error{Errc::upstream, "the hub names another Xet file"};
  const std::string_view size = head.find("x-linked-size");
  if (!size.empty() && parse_u64(size) != file.bytes)
    return Error{Errc::upstream, cat("the hub names another size than ", file.bytes)};
  return {};
}

std::string range_text(ByteRange range) {
  return cat("bytes ", range.offset, '-', range.end() - 1);
}

// What a 200 or 206 brings.
struct Body {
  uint64_t skip_bytes = 0;    // before the range
  uint64_t answer_bytes = 0;  // of the range, from its start; a server may bring less than all
};

// Errors: upstream, when the body is not for sure what was asked for.
Result<Body> describe_body(const FileAddress& file, ByteRange range, const HttpResponseHead& head) {
  const std::string encoding = lower_case(head.find("content-encoding"));
  if (!encoding.empty() && encoding != "identity")
    return Error{Errc::upstream, "the body is encoded, though we asked for it plain"};
  const std::string_view length_text = head.find("content-length");
  const std::optional<uint64_t> length = parse_u64(length_text);
  if (!length_text.empty() && !length) return Error{Errc::upstream, "malformed Content-Length"};
  if (head.status == 200) {
    // The server ignored Range.  Only a body of the known size can be counted off; one that does
    // not say its size may be a login page, unless it says whose bytes it brings.
    if (length ? *length != file.bytes : !is_named(file, head))
      return Error{Errc::upstream, cat("a whole body of ",
                                       length ? std::to_string(*length) : "an unknown number of",
                                       " bytes instead of the range; the file has ", file.bytes)};
    return Body{range.offset, range.length};
  }
  const std::optional<ContentRange> said = parse_content_range(head.find("content-range"));
  const bool is_right = said && said->range.offset == range.offset &&
                        said->range.length <= range.length &&
                        said->total_bytes.value_or(file.bytes) == file.bytes;
  if (!is_right)
    return Error{Errc::upstream,
                 cat("wrong Content-Range: asked for ", range_text(range), " of ", file.bytes,
                     ", got ", said ? range_text(said->range) : "none that can be read",
                     said && said->total_bytes ? cat(" of ", *said->total_bytes) : "")};
  if (length && *length != said->range.length)
    return Error{Errc::upstream, "Content-Length and Content-Range disagree"};
  return Body{0, said->range.length};
}

// Signed URLs are secrets; their hosts are not.
std::string host_of(const Route& route) {
  return route.is_hub ? "the hub" : cat("the storage host ", route.url.host);
}

// Name of the counter that a request to there counts on.
std::string pace_of(const Route& route) {
  return route.is_hub ? "resolve" : cat(route.url.host, ':', route.url.port);
}

std::string resolve_path(const FileAddress& file) {
  const std::string prefix =
      file.repo.type == RepoType::model ? "/" : cat("/", repo_type_plural(file.repo.type), "/");
  return prefix + encode_path(file.repo.id) + "/resolve/" + encode_segment(file.commit) + "/" +
         encode_path(file.path);
}

}  // namespace

// Confined to one thread at a time: the caller's, then the HTTP thread of each request in turn.
struct HubReader::Read {
  FileAddress file;
  ByteRange range;
  bool is_demand;
  Deadline deadline;
  std::shared_ptr<RangeSink> sink;
  std::string key;
  HubQuestion question;
  Url resolve_url;

  bool leads = false;          // others may wait for us to settle or abandon
  bool has_refreshed = false;  // one second chance
  unsigned redirects = 0;
  Route route;              // where the present request goes
  bool is_asking = false;   // the present request goes to the resolve URL
  std::optional<Url> next;  // of a redirect

  // Of the present answer.
  enum class Body { none, file, talk } body = Body::none;
  HttpResponseHead head;
  std::string talk;
  std::optional<Error> error;
  uint64_t skip_bytes = 0;
  uint64_t answer_bytes = 0;     // of the range that the answer brings
  uint64_t delivered_bytes = 0;  // of them
  bool is_stopped = false;       // by the sink
};

HubReader::HubReader(std::shared_ptr<HubSession> session, Metrics& metrics)
    : session_(std::move(session)),
      resolves_sent_(metrics.counter("fetch.resolves_sent")),
      urls_refreshed_(metrics.counter("fetch.urls_refreshed")) {}

void HubReader::read(const FileAddress& file, ByteRange range, bool is_demand, Deadline deadline,
                     std::shared_ptr<RangeSink> sink) {
  const std::optional<uint64_t> end = checked_add(range.offset, range.length);
  if (range.length == 0 || !end || *end > file.bytes)
    return sink->on_end(Error{Errc::invalid, file.path + ": range outside of the file"});
  auto read = std::make_shared<Read>();
  read->file = file;
  read->range = range;
  read->is_demand = is_demand;
  read->deadline = std::move(deadline);
  read->sink = std::move(sink);
  read->key =
      cat(repo_type_plural(file.repo.type), "/", file.repo.id, "@", file.commit, "/", file.path);
  // Whoever reads names the file.
  read->question = session_->question(file.repo, "the hub");
  read->resolve_url = session_->url(resolve_path(file));
  start(std::move(read));
}

void HubReader::start(ReadPtr read) {
  const auto begun = routes_.start(read->key, read);
  switch (begun.turn) {
    case FileRoutes<Read>::Turn::go:
      return go(std::move(read), *begun.route);
    case FileRoutes<Read>::Turn::lead:
      read->leads = true;
      return lead(std::move(read));
    case FileRoutes<Read>::Turn::wait:
      if (begun.is_first_waiter) look_after_waiting();
      return;
  }
}

void HubReader::go(ReadPtr read, const Route& route) {
  read->route = route;
  read->redirects = 0;
  read->is_asking = route.url == read->resolve_url;
  send(std::move(read));
}

void HubReader::lead(ReadPtr read) {
  read->route = Route{.url = read->resolve_url, .is_hub = true, .expires_at = {}, .number = 0};
  read->redirects = 0;
  read->is_asking = true;
  resolves_sent_.add();
  send(std::move(read));
}

// In its turn, if the server named a pace.
void HubReader::send(ReadPtr read) {
  const SteadyTime now = steady_now();
  const SteadyTime turn = session_->paces().take_turn(pace_of(read->route));
  if (turn <= now) return transmit(std::move(read));
  if (turn >= read->deadline.at())
    return finish(read, Error{Errc::rate_limited, cat(host_of(read->route), " asked us to wait")});
  session_->wait(std::chrono::ceil<Millis>(turn - now), read->deadline,
                 [self = shared_from_this(), read](Status status) {
                   if (!status) return self->finish(read, std::move(status));
                   self->transmit(read);
                 });
}

void HubReader::transmit(ReadPtr read) {
  read->body = Read::Body::none;
  read->head = {};
  read->talk.clear();
  read->next.reset();
  HttpRequest request;
  request.url = read->route.url.str();
  request.range = read->range;
  // Many may wait for what a leader finds, whatever it asks for itself.
  request.is_demand = read->is_demand || read->leads;
  request.deadline = read->deadline;
  read->question.token.clear();
  if (read->route.is_hub) {
    Result<std::string> token = session_->authorize(read->route.url, request.headers);
    if (!token) return finish(read, std::move(token).error());
    read->question.token = *std::move(token);
  }
  HttpHandlers handlers;
  handlers.on_head = [self = shared_from_this(), read](const HttpResponseHead& head) {
    return self->on_head(*read, head);
  };
  handlers.on_body = [self = shared_from_this(), read](ByteSpan bytes) {
    return self->on_body(*read, bytes);
  };
  handlers.on_done = [self = shared_from_this(), read](Status status) {
    self->on_done(read, std::move(status));
  };
  session_->http().start(std::move(request), std::move(handlers));
}

bool HubReader::on_head(Read& read, const HttpResponseHead& head) {
  read.head = head;
  session_->paces().note(pace_of(read.route), head);
  Status status;
  if (head.status == 200 || head.status == 206) {
    status = take_bytes(read, head);
    read.body = Read::Body::file;
  } else {
    if (head.is_redirect()) status = take_redirect(read, head);
    read.body = Read::Body::talk;
  }
  if (!status) routes_.drop(read.key, read.route.number);
  if (status && read.body == Read::Body::file) status = take_whole_body(read);
  if (status) return true;
  read.error = std::move(status).error();
  return false;
}

Status HubReader::take_redirect(Read& read, const HttpResponseHead& head) {
  if (read.route.is_hub) CAKE_TRY(check_identity(read.file, head, false));
  if (++read.redirects > kMaxRedirects) return Error{Errc::upstream, "redirected without end"};
  const std::string_view location = head.find("location");
  if (location.empty()) return Error{Errc::upstream, "redirect without Location"};
  read.next = CAKE_TRY(session_->target(read.route.url, location));
  // A host that the hub sent us to cannot send our token back to it.
  const bool was_hub = read.route.is_hub;
  const bool stays = was_hub && read.next->is_of(session_->endpoint());
  if (stays || !was_hub) return {};
  // The signed URL is known before its redirect's body has ended; so are those who wait for it.
  const int64_t now = parse_http_date(head.find("date")).value_or(unix_now());
  read.route.url = *read.next;
  read.route.is_hub = false;
  read.route.number = 0;
  if (read.leads) settle(read, signed_url_life(*read.next, now));
  return {};
}

Status HubReader::take_bytes(Read& read, const HttpResponseHead& head) {
  if (read.route.is_hub) CAKE_TRY(check_identity(read.file, head, true));
  const Body body = CAKE_TRY(describe_body(read.file, read.range, head));
  if (read.leads) settle(read, kHubRouteLife);
  if (!routes_.is_same_etag(read.key, read.route.number, bare_etag(head.find("etag"))))
    return Error{Errc::upstream, "the file changed while it was read: another ETag"};
  read.skip_bytes = body.skip_bytes;
  read.answer_bytes = body.answer_bytes;
  read.delivered_bytes = 0;
  return {};
}

// What comes of an ignored Range is the sink's to say; the route is as good as any.
Status HubReader::take_whole_body(Read& read) {
  if (read.head.status != 200 || read.range.length == read.file.bytes) return {};
  switch (read.sink->on_whole_body()) {
    case RangeSink::WholeBody::count_off:
      break;
    case RangeSink::WholeBody::take:
      read.range = {0, read.file.bytes};
      read.skip_bytes = 0;
      read.answer_bytes = read.file.bytes;
      break;
    case RangeSink::WholeBody::refuse:
      return Error{Errc::upstream, "the whole file instead of a range"};
  }
  return {};
}

bool HubReader::on_body(Read& read, ByteSpan bytes) {
  if (read.body != Read::Body::file) {
    if (read.talk.size() + bytes.size() > kMaxTalkBytes) return false;
    read.talk += as_text(bytes);
    return true;
  }
  const uint64_t skipped = std::min<uint64_t>(read.skip_bytes, bytes.size());
  read.skip_bytes -= skipped;
  bytes = bytes.subspan(skipped);
  const uint64_t wanted = read.answer_bytes - read.delivered_bytes;
  if (bytes.size() > wanted && read.head.status == 206) {
    read.error = Error{Errc::upstream, "the body is longer than the range"};
    return false;
  }
  const ByteSpan piece = bytes.first(std::min<uint64_t>(wanted, bytes.size()));
  if (!piece.empty()) {
    const uint64_t at = read.range.offset + read.delivered_bytes;
    read.delivered_bytes += piece.size();
    read.is_stopped = !read.sink->on_bytes(at, piece);
    if (read.is_stopped) return false;
  }
  // The rest of a whole body is not wanted.
  return read.head.status == 206 || read.delivered_bytes < read.answer_bytes;
}

void HubReader::on_done(const ReadPtr& read, Status status) {
  if (read->error) return finish(read, *std::exchange(read->error, std::nullopt));
  if (read->is_stopped) return finish(read, Error{Errc::cancelled, "ended by the reader"});
  if (read->body == Read::Body::file) {
    if (read->delivered_bytes < read->answer_bytes) {
      if (status) status = Error{Errc::upstream, "the body is shorter than the range"};
      leave_route(*read, status.error().code);
      return finish(read, std::move(status));
    }
    if (read->answer_bytes == read->range.length) return finish(read, {});
    // As much as this server gives at a time (RFC 9110, 15.3.7); the rest is asked for.
    read->range = {read->range.offset + read->answer_bytes,
                   read->range.length - read->answer_bytes};
    if (Status over = read->deadline.check(); !over) return finish(read, std::move(over));
    return send(read);
  }
  if (read->body == Read::Body::none) {
    if (!status) leave_route(*read, status.error().code);
    return finish(read, std::move(status));
  }
  if (Status over = read->deadline.check(); !over) return finish(read, std::move(over));
  // Of a redirect or failure the head is enough, unless we are being shut down.
  if (!status && status.error().code == Errc::cancelled && read->talk.empty())
    return finish(read, std::move(status));
  if (!read->next) return take_failure(read);
  read->route.url = *read->next;
  read->is_asking = false;
  send(read);
}

// The hub may name another storage host by now; the next attempt asks it.
void HubReader::leave_route(const Read& read, Errc failure) {
  if (!read.is_asking && is_transient(failure)) routes_.drop(read.key, read.route.number);
}

void HubReader::take_failure(const ReadPtr& read) {
  const int status = read->head.status;
  const bool may_be_stale =
      status == 400 || status == 401 || status == 403 || status == 404 || status == 410;
  if (may_be_stale && !read->is_asking && !read->has_refreshed) {
    read->has_refreshed = true;
    urls_refreshed_.add();
    routes_.drop(read->key, read->route.number);
    return read->leads ? lead(read) : start(read);
  }
  const HubFailure failure = parse_failure(read->head, read->talk);
  if (!read->route.is_hub) {
    const Errc code = status == 429 ? Errc::rate_limited : Errc::upstream;
    if (code == Errc::upstream) leave_route(*read, code);
    return finish(read, Error{code, cat(host_of(read->route), ": HTTP ", status)});
  }
  finish(read, failure_error(failure, read->question));
}

void HubReader::settle(Read& read, Millis life) {
  read.leads = false;
  read.route.expires_at = steady_now() + life;
  for (ReadPtr& waiting : routes_.settle(read.key, read.route)) go(std::move(waiting), read.route);
}

void HubReader::finish(const ReadPtr& read, Status status) {
  std::vector<ReadPtr> waiting;
  if (std::exchange(read->leads, false)) waiting = routes_.abandon(read->key);
  // What ended the leader alone is no answer for those behind it: the next one leads.
  const bool is_own =
      !status && (status.error().code == Errc::cancelled || !read->deadline.check());
  for (ReadPtr& other : waiting) {
    if (is_own) {
      start(std::move(other));
    } else {
      finish(other, status);
    }
  }
  std::exchange(read->sink, nullptr)->on_end(std::move(status));
}

void HubReader::look_after_waiting() {
  session_->http().after(kWaitingSweep, [self = shared_from_this()] {
    bool is_any_left = false;
    for (const ReadPtr& read : self->routes_.take_overdue(is_any_left))
      self->finish(read, read->deadline.check());
    if (is_any_left) self->look_after_waiting();
  });
}

}  // namespace cake
