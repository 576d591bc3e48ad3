#include "fetch/hub_parse.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

namespace cake {
namespace {

using Json = nlohmann::json;

constexpr int kMaxJsonDepth = 32;
constexpr size_t kMaxMessageBytes = 300;
constexpr int64_t kUnknownLifeSeconds = 15 * 60;
constexpr int64_t kLongestLifeSeconds = 3600;
constexpr int64_t kMarginSeconds = 60;

// Longest path of an entry that is looked at; hubs and file systems allow fewer.
constexpr size_t kMaxPathBytes = 4096;

// Parses; `keep` sees every event and answers false to drop the value, so that a page of a
// thousand entries never stands in memory as a tree.  It must keep no list inside of another and
// few members of an object: with each object's end the parser goes through all that its parent has.
Result<Json> parse_json(std::string_view text, const Json::parser_callback_t& keep) {
  bool is_too_deep = false;
  const auto bounded = [&](int depth, Json::parse_event_t event, Json& value) {
    is_too_deep = is_too_deep || depth > kMaxJsonDepth;
    return depth <= kMaxJsonDepth && keep(depth, event, value);
  };
  Json json = Json::parse(text.begin(), text.end(), bounded, /*allow_exceptions=*/false);
  if (is_too_deep) return Error{Errc::upstream, "JSON is nested too deep"};
  if (json.is_discarded()) return Error{Errc::upstream, "answer is not JSON"};
  return json;
}

std::string string_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::string lower_hex(std::string text, size_t digits) {
  for (char& letter : text)
    if (letter >= 'A' && letter <= 'F') letter = static_cast<char>(letter - 'A' + 'a');
  return is_hex(text, digits) ? text : std::string();
}

// What is looked at of the entries of lists.
bool is_known_member(const Json& name) {
  for (const char* known : {"type", "path", "size", "oid", "xetHash", "lfs", "id"})
    if (name == known) return true;
  return false;
}

// Calls `each` for every object of an array, with its known members, then forgets it.
Status for_each_object(std::string_view text, const std::function<Status(const Json&)>& each) {
  using Event = Json::parse_event_t;
  Status status;
  bool is_list = false;
  const auto keep = [&](int depth, Event event, Json& value) {
    if (depth == 0) {
      is_list = is_list || event == Event::array_start;
      return true;
    }
    if (depth == 1 && event == Event::object_end) {
      if (status) status = each(value);
      return false;
    }
    if (depth == 1 && event != Event::object_start) {
      status = Error{Errc::upstream, "the list has something else than objects"};
      return false;
    }
    if (event == Event::key) return is_known_member(value);
    return event != Event::array_start;
  };
  CAKE_TRY(parse_json(text, keep));
  if (!is_list) return Error{Errc::upstream, "answer is not a list"};
  return status;
}

Status add_tree_entry(const Json& object, std::vector<TreeEntry>& entries) {
  if (string_of(object, "type") != "file") return {};
  TreeEntry entry;
  entry.path = string_of(object, "path");
  if (entry.path.size() > kMaxPathBytes) entry.path = "/";  // as invalid, and counted with those
  const auto size = object.find("size");
  const bool has_size = size != object.end() && size->is_number_unsigned() &&
                        size->get<uint64_t>() <= std::numeric_limits<int64_t>::max();
  // Left out, as other names that cannot be shown are, and told of: not a reason to lose the repo.
  if (entry.path.empty() || !has_size) entry.path = "/";
  entry.bytes = has_size ? size->get<uint64_t>() : 0;
  entry.ids.git_oid = lower_hex(string_of(object, "oid"), 40);
  entry.ids.xet = lower_hex(string_of(object, "xetHash"), 64);
  if (const auto lfs = object.find("lfs"); lfs != object.end() && lfs->is_object())
    entry.ids.sha256 = lower_hex(string_of(*lfs, "oid"), 64);
  entries.push_back(std::move(entry));
  return {};
}

bool is_same_word(std::string_view text, std::string_view lower_case) {
  return std::equal(text.begin(), text.end(), lower_case.begin(), lower_case.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

// Whether "next" is among the relations, which blanks part (RFC 8288, 3.3).
bool has_next(std::string_view relations) {
  while (!(relations = trimmed(relations)).empty()) {
    const size_t end = std::min(relations.find_first_of(" \t"), relations.size());
    if (is_same_word(relations.substr(0, end), "next")) return true;
    relations.remove_prefix(end);
  }
  return false;
}

bool is_rel_next(std::string_view parameters) {
  while (!parameters.empty()) {
    const size_t end = std::min(parameters.find(';'), parameters.size());
    const std::string_view one = parameters.substr(0, end);
    parameters.remove_prefix(std::min(end + 1, parameters.size()));
    const size_t equals = one.find('=');
    if (equals == std::string_view::npos || !is_same_word(trimmed(one.substr(0, equals)), "rel"))
      continue;
    std::string_view relations = trimmed(one.substr(equals + 1));
    if (relations.size() >= 2 && relations.front() == '"' && relations.back() == '"')
      relations = relations.substr(1, relations.size() - 2);
    if (has_next(relations)) return true;
  }
  return false;
}

// Of the parameters behind a target: the comma before the next link, not one that is quoted.
size_t end_of_link(std::string_view parameters) {
  bool is_quoted = false;
  for (size_t i = 0; i < parameters.size(); i++) {
    if (is_quoted && parameters[i] == '\\')
      i++;
    else if (parameters[i] == '"')
      is_quoted = !is_quoted;
    else if (parameters[i] == ',' && !is_quoted)
      return i;
  }
  return parameters.size();
}

std::optional<std::string> next_in(std::string_view value) {
  while (true) {
    const size_t open = value.find('<');
    if (open == std::string_view::npos) return std::nullopt;
    const size_t close = value.find('>', open);
    if (close == std::string_view::npos) return std::nullopt;
    const std::string_view target = value.substr(open + 1, close - open - 1);
    value.remove_prefix(close + 1);
    const std::string_view parameters = value.substr(0, end_of_link(value));
    value.remove_prefix(parameters.size());
    if (is_rel_next(parameters)) return std::string(target);
  }
}

// "20260820T101112Z"
std::optional<int64_t> parse_amz_date(std::string_view text) {
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z') return std::nullopt;
  const auto part = [&](size_t from, size_t length) {
    return std::string(text.substr(from, length));
  };
  return parse_rfc3339(part(0, 4) + "-" + part(4, 2) + "-" + part(6, 2) + "T" + part(9, 2) + ":" +
                       part(11, 2) + ":" + part(13, 2) + "Z");
}

std::optional<int64_t> expiry_of(const Url& url) {
  constexpr uint64_t kFar = uint64_t{1} << 40;
  const auto number = [&](const char* name) -> std::optional<uint64_t> {
    const std::optional<std::string> text = url.find_query(name);
    const std::optional<uint64_t> value = text ? parse_u64(*text) : std::nullopt;
    return value && *value < kFar ? value : std::nullopt;
  };
  if (const auto epoch = number("Expires")) return static_cast<int64_t>(*epoch);
  const std::optional<std::string> date = url.find_query("X-Amz-Date");
  const std::optional<int64_t> signed_at = date ? parse_amz_date(*date) : std::nullopt;
  const std::optional<uint64_t> seconds = number("X-Amz-Expires");
  if (!signed_at || !seconds) return std::nullopt;
  return *signed_at + static_cast<int64_t>(*seconds);
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char letter : text.substr(0, kMaxMessageBytes))
    out += letter >= 0x20 && letter < 0x7f ? letter : ' ';
  return out;
}

void cut_out(std::string& text, const std::string& secret) {
  if (secret.empty()) return;
  for (size_t at = text.find(secret); at != std::string::npos; at = text.find(secret))
    text.replace(at, secret.size(), "***");
}

}  // namespace

Result<RevisionInfo> parse_revision_info(std::string_view json) {
  // The rest of a repo's card may be megabytes.
  const auto keep = [](int depth, Json::parse_event_t event, Json& value) {
    if (depth == 0) return true;
    if (event == Json::parse_event_t::key)
      return value == "sha" || value == "id" || value == "lastModified";
    return event == Json::parse_event_t::value;
  };
  const Json object = CAKE_TRY(parse_json(json, keep));
  if (!object.is_object()) return Error{Errc::upstream, "repo information is not an object"};
  RevisionInfo info;
  info.commit = lower_hex(string_of(object, "sha"), 40);
  if (info.commit.empty()) return Error{Errc::upstream, "repo information names no commit"};
  info.canonical_id = string_of(object, "id");
  info.last_modified = parse_rfc3339(string_of(object, "lastModified")).value_or(0);
  return info;
}

Status parse_tree_page(std::string_view json, std::vector<TreeEntry>& entries) {
  const size_t before = entries.size();
  CAKE_TRY(
      for_each_object(json, [&](const Json& object) { return add_tree_entry(object, entries); }));
  // Every single one: that is no list of a hub.
  const bool has_any = std::any_of(entries.begin() + static_cast<ptrdiff_t>(before), entries.end(),
                                   [](const TreeEntry& entry) { return entry.path != "/"; });
  if (entries.size() > before && !has_any)
    return Error{Errc::upstream, "no file of the tree has a name and a size"};
  return {};
}

Status parse_repo_page(std::string_view json, std::vector<std::string>& ids) {
  return for_each_object(json, [&](const Json& object) -> Status {
    std::string id = string_of(object, "id");
    if (!id.empty()) ids.push_back(std::move(id));
    return {};
  });
}

std::optional<std::string> find_next_link(const HttpResponseHead& head) {
  for (const HttpHeader& header : head.headers)
    if (header.name == "link")
      if (auto target = next_in(header.value)) return target;
  return std::nullopt;
}

std::optional<uint64_t> parse_u64(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<ContentRange> parse_content_range(std::string_view text) {
  if (text.size() < 6 || !is_same_word(text.substr(0, 6), "bytes ")) return std::nullopt;
  text.remove_prefix(6);
  const size_t dash = text.find('-'), slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash)
    return std::nullopt;
  const auto first = parse_u64(trimmed(text.substr(0, dash)));
  const auto last = parse_u64(trimmed(text.substr(dash + 1, slash - dash - 1)));
  const std::string_view total_text = trimmed(text.substr(slash + 1));
  const auto total = parse_u64(total_text);
  if (!first || !last || (!total && total_text != "*")) return std::nullopt;
  if (*last < *first || *last >= total.value_or(UINT64_MAX)) return std::nullopt;
  return ContentRange{{*first, *last - *first + 1}, total};
}

std::string_view bare_etag(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"')
    etag = etag.substr(1, etag.size() - 2);
  return etag;
}

Millis signed_url_life(const Url& url, int64_t now) {
  const std::optional<int64_t> expiry = expiry_of(url);
  if (!expiry) return Millis(1000 * kUnknownLifeSeconds);
  const int64_t left = std::clamp<int64_t>(*expiry - now, 0, kLongestLifeSeconds + kMarginSeconds);
  return Millis(1000 * left - 1000 * std::min(kMarginSeconds, left / 2));
}

HubFailure parse_failure(const HttpResponseHead& head, std::string_view body) {
  HubFailure failure{head.status, printable(head.find("x-error-code")), {}, false};
  std::string message(head.find("x-error-message"));
  if (message.empty() && body.starts_with('{')) {
    const auto keep = [](int depth, Json::parse_event_t event, const Json& value) {
      if (event == Json::parse_event_t::key) return value == "error";
      return depth == 0 || event == Json::parse_event_t::value;
    };
    const Result<Json> json = parse_json(body.substr(0, 64 * kKiB), keep);
    if (json && json->is_object()) message = string_of(*json, "error");
  }
  if (message.empty() && !body.starts_with('<') && !body.starts_with('{'))
    message = body.substr(0, kMaxMessageBytes);
  failure.message = printable(message);
  failure.is_page =
      failure.code.empty() && head.find("x-error-message").empty() &&
      (trimmed(body).starts_with('<') || head.find("content-type").starts_with("text/html"));
  return failure;
}

Error failure_error(const HubFailure& failure, const HubQuestion& question) {
  const std::string& what = question.what;
  std::string said = failure.message;
  cut_out(said, question.token);
  const bool has_token = !question.token.empty();
  const std::string detail = cat(what, ": HTTP ", failure.status, said.empty() ? "" : ": ", said);
  // A proxy or a gate on the way; the hub's own refusals say what they are.
  if (failure.is_page && (failure.status == 401 || failure.status == 403))
    return Error{Errc::upstream,
                 detail + ": a page that is not the hub's; check proxy and network"};
  const bool is_bad_token = said.find("Invalid credentials in Authorization") != std::string::npos;
  if (failure.code == "RevisionNotFound")
    return Error{Errc::not_found, what + ": no such branch, tag or commit"};
  if (failure.code == "EntryNotFound") return Error{Errc::not_found, what + ": no such file"};
  if (failure.code == "GatedRepo")
    return Error{Errc::denied,
                 what + ": the repo is gated; " +
                     (has_token ? "ask for access with the token's account at "
                                : "set a token (HF_TOKEN or token_file) that has access, see ") +
                     question.repo_page};
  if (said == "Access to this resource is disabled.")
    return Error{Errc::denied, what + ": the hub has disabled this repo"};
  if (failure.code == "RepoNotFound")
    return Error{Errc::not_found, what + ": no such repo, or private and not the token's"};
  if (failure.status == 401 && has_token)
    return Error{Errc::denied, what + ": token refused; it is wrong or expired"};
  if (failure.status == 401 && is_bad_token)
    return Error{Errc::denied, what + ": the hub wants a token; set one (HF_TOKEN or token_file)"};
  if (failure.status == 401)
    return Error{Errc::not_found, what + ": no such repo, or private: then set a token"};
  if (failure.status == 403 || failure.status == 451) return Error{Errc::denied, detail};
  if (failure.status == 410) return Error{Errc::not_found, detail};  // asking again is in vain
  if (failure.status == 429) return Error{Errc::rate_limited, detail};
  return Error{Errc::upstream, detail};
}

}  // namespace cake
