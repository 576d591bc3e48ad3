#include "fetch/hub_route.h"

#include <map>
#include <optional>
#include <vector>

#include "fetch/http_values.h"

namespace cake {

namespace {

using Segments = std::vector<std::string_view>;  // as sent, still encoded

Segments split(std::string_view path) {
  Segments out;
  while (path.starts_with('/')) path.remove_prefix(1);
  while (!path.empty()) {
    const size_t slash = path.find('/');
    out.push_back(path.substr(0, slash));
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return out;
}

// Decodes the segments from `first` to `last` and joins them with slashes.
std::optional<std::string> join(const Segments& segments, size_t first, size_t last) {
  std::string out;
  for (size_t i = first; i < last; i++) {
    const auto part = decode_uri_part(segments[i]);
    if (!part) return std::nullopt;
    if (i > first) out += '/';
    out += *part;
  }
  return out;
}

std::optional<RepoType> find_type(std::string_view plural) {
  for (const RepoType type : {RepoType::model, RepoType::dataset, RepoType::space})
    if (repo_type_plural(type) == plural) return type;
  return std::nullopt;
}

std::optional<HubRoute::Kind> find_verb(std::string_view word) {
  static const std::map<std::string_view, HubRoute::Kind> kVerbs = {
      {"revision", HubRoute::Kind::info},
      {"tree", HubRoute::Kind::tree},
      {"refs", HubRoute::Kind::refs},
      {"commits", HubRoute::Kind::commits},
      {"paths-info", HubRoute::Kind::paths_info},
      {"auth-check", HubRoute::Kind::auth_check},
      {"treesize", HubRoute::Kind::tree_size}};
  const auto found = kVerbs.find(word);
  if (found == kVerbs.end()) return std::nullopt;
  return found->second;
}

// Takes the revision from segment `at`, and the path from what follows.
bool take_revision(HubRoute& route, const Segments& segments, size_t at) {
  size_t next = at + 1;
  auto revision = decode_uri_part(segments[at]);
  // "refs/pr/1" with its slashes unencoded.
  if (revision == "refs" && at + 2 < segments.size()) {
    revision = join(segments, at, at + 3);
    next = at + 3;
  }
  auto path = join(segments, next, segments.size());
  if (!revision || !path) return false;
  while (path->ends_with('/')) path->pop_back();
  route.revision = *revision == "HEAD" ? "main" : *revision;  // the JavaScript client asks for HEAD
  route.path = *path;
  return true;
}

HubRoute api_route(HubRoute route, const Segments& segments,
                   const std::function<bool(const RepoName&)>& has_repo) {
  if (segments.size() == 2 && segments[1] == "whoami-v2") {
    route.kind = HubRoute::Kind::whoami;
    return route;
  }
  const auto type = segments.size() >= 2 ? find_type(segments[1]) : std::nullopt;
  if (!type) return route;
  route.repo.type = *type;
  if (segments.size() == 2) {
    route.kind = HubRoute::Kind::list;
    return route;
  }
  // ORG/NAME[/VERB…] or NAME[/VERB…]: the longer id wins where both could be.
  size_t verb = 3;
  if (segments.size() == 4 || (segments.size() > 4 && find_verb(segments[4]))) {
    route.repo.id = cat(segments[2], '/', segments[3]);
    const bool is_short = segments.size() == 4 && find_verb(segments[3]) && !has_repo(route.repo);
    if (!is_short) verb = 4;
  }
  if (verb == 3) route.repo.id = segments[2];
  const auto kind = verb < segments.size() ? find_verb(segments[verb]) : HubRoute::Kind::info;
  if (!kind) return route;
  route.kind = *kind;
  if (verb + 1 < segments.size() && *kind != HubRoute::Kind::refs &&
      *kind != HubRoute::Kind::auth_check && !take_revision(route, segments, verb + 1))
    route.kind = HubRoute::Kind::malformed;
  return route;
}

// /api/resolve-cache/models/ORG/NAME/COMMIT/PATH
HubRoute cache_route(HubRoute route, const Segments& segments,
                     const std::function<bool(const RepoName&)>& has_repo) {
  const auto type = segments.size() >= 6 ? find_type(segments[2]) : std::nullopt;
  if (!type) return route;
  route.repo = {*type, cat(segments[3], '/', segments[4])};
  size_t at = 5;
  if (!has_repo(route.repo)) {
    route.repo.id = segments[3];
    at = 4;
  }
  if (at + 1 < segments.size() && take_revision(route, segments, at))
    route.kind = HubRoute::Kind::resolve_cache;
  return route;
}

}  // namespace

HubRoute parse_hub_route(std::string_view path,
                         const std::function<bool(const RepoName&)>& has_repo) {
  HubRoute route;
  const Segments segments = split(path);
  route.is_api = !segments.empty() && segments[0] == "api";
  if (route.is_api) {
    const bool is_cache = segments.size() >= 2 && segments[1] == "resolve-cache";
    return is_cache ? cache_route(std::move(route), segments, has_repo)
                    : api_route(std::move(route), segments, has_repo);
  }
  // [datasets|spaces]/ORG/NAME/resolve/REV/PATH, and without ORG.
  const auto type = segments.empty() ? std::nullopt : find_type(segments[0]);
  route.repo.type = type.value_or(RepoType::model);
  const size_t id = type ? 1 : 0;
  for (const size_t verb : {id + 2, id + 1}) {
    if (verb >= segments.size() || (segments[verb] != "resolve" && segments[verb] != "raw"))
      continue;
    const auto name = join(segments, id, verb);
    if (!name || verb + 2 >= segments.size() || !take_revision(route, segments, verb + 1))
      return route;
    route.repo.id = *name;
    route.kind = segments[verb] == "raw" ? HubRoute::Kind::raw : HubRoute::Kind::resolve;
    return route;
  }
  return route;
}

}  // namespace cake
