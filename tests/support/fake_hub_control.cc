// The knobs of FakeHub by query string.

#include <charconv>
#include <nlohmann/json.hpp>

#include "tests/support/fake_hub.h"

namespace cake {

namespace {

// Values of one query; what is malformed is remembered, and refused at the end.
class Query {
 public:
  explicit Query(std::string_view text) : text_(text) {}
  std::optional<std::string> text(std::string_view key) const { return find_query(text_, key); }
  std::optional<uint64_t> number(std::string_view key) {
    const auto value = text(key);
    if (!value) return std::nullopt;
    const auto parsed = parse_size(*value);
    if (!parsed) problem_ = cat(key, ": not a number: ", *value);
    return parsed;
  }
  void refuse(std::string problem) { problem_ = std::move(problem); }
  const std::string& problem() const { return problem_; }

 private:
  std::string_view text_;
  std::string problem_;
};

void set_fault(FakeHub& hub, Query& query, nlohmann::json& out) {
  const auto name = query.text("fault");
  if (!name) return;
  const auto kind = parse_fault_kind(*name);
  if (!kind) return query.refuse("fault: not known: " + *name);
  Fault fault{.kind = *kind};
  fault.endpoint = query.text("endpoint").value_or("*");
  fault.path = query.text("path").value_or("*");
  fault.count = query.number("count").value_or(UINT64_MAX);
  fault.after_bytes = query.number("after").value_or(0);
  fault.status = static_cast<int>(query.number("status").value_or(503));
  fault.delay = Millis(query.number("delay_ms").value_or(0));
  fault.location = query.text("location").value_or("");
  fault.body = query.text("body").value_or("");
  if (const auto percent = query.number("percent"))
    fault.probability = static_cast<double>(*percent) / 100;
  if (const auto seconds = query.text("retry_after"))
    fault.headers.push_back({"Retry-After", *seconds});
  if (const auto value = query.text("ratelimit")) fault.headers.push_back({"RateLimit", *value});
  if (query.problem().empty()) out["fault_id"] = hub.set_fault(std::move(fault));
}

void set_content(FakeHub& hub, Query& query, nlohmann::json& out) {
  const auto repo = query.text("repo");
  const std::string revision = query.text("revision").value_or("main");
  const auto file = query.text("file");
  if (const auto access = query.text("access")) {
    static const std::map<std::string, HubAccess> kNames = {{"open", HubAccess::open},
                                                            {"hidden", HubAccess::hidden},
                                                            {"gated", HubAccess::gated},
                                                            {"disabled", HubAccess::disabled}};
    if (!repo || !kNames.contains(*access)) return query.refuse("access: wants repo and a word");
    hub.set_access(*repo, kNames.at(*access));
  }
  if (const auto token = query.text("token"))
    hub.add_token(*token, {query.text("opens").value_or("*")});
  if (!file) return;
  if (!repo) return query.refuse("file: wants repo");
  if (const auto text = query.text("text"))
    hub.add(*repo, *file, to_buffer(as_bytes(*text)), revision);
  else if (const auto bytes = query.number("bytes"))
    hub.add_pattern(*repo, *file, *bytes, query.number("seed").value_or(0), revision);
  else
    hub.content().remove(parse_repo(*repo), revision, *file);
  out["commit"] = hub.commit(*repo, revision);
}

void set_link(FakeHub& hub, Query& query) {
  if (const auto value = query.number("latency_ms")) hub.set_latency(Millis(*value));
  const auto total = query.number("rate"), each = query.number("conn_rate");
  if (total || each) hub.set_rates(total.value_or(0), each.value_or(0));
  if (const auto value = query.number("url_lifetime_ms")) hub.set_url_lifetime(Millis(*value));
  if (query.text("expire_urls")) hub.expire_urls();
  if (const auto shape = query.text("shape")) {
    static const std::map<std::string, FakeShape> kNames = {{"direct", FakeShape::direct},
                                                            {"hub", FakeShape::hub},
                                                            {"cached", FakeShape::cached},
                                                            {"cdn", FakeShape::cdn}};
    if (!kNames.contains(*shape)) return query.refuse("shape: not known: " + *shape);
    hub.set_shape(kNames.at(*shape));
  }
}

nlohmann::json counters_json(const FakeHub& hub) {
  const FakeHubCounters counters = hub.counters();
  return {{"requests", counters.requests},
          {"bytes_sent", counters.bytes_sent},
          {"faults", counters.faults},
          {"connections", counters.connections},
          {"authorization_at_cdn", counters.authorization_at_cdn},
          {"stalled", hub.stalled()},
          {"requests_by_endpoint", counters.requests_by_endpoint},
          {"bytes_by_endpoint", counters.bytes_by_endpoint},
          {"requests_by_path", counters.requests_by_path},
          {"bytes_by_path", counters.bytes_by_path}};
}

}  // namespace

HttpServerResponse control(FakeHub& hub, std::string_view text) {
  Query query(text);
  nlohmann::json out = nlohmann::json::object();
  if (query.text("clear")) hub.clear_faults();
  if (const auto id = query.number("clear_fault")) hub.clear_fault(*id);
  set_content(hub, query, out);
  set_link(hub, query);
  set_fault(hub, query, out);
  if (query.text("release")) hub.release_stalled();
  if (query.text("counters")) out["counters"] = counters_json(hub);
  if (query.text("reset_counters")) hub.reset_counters();
  if (!query.problem().empty()) return {.status = 400, .body = query.problem() + "\n"};
  return {.headers = {{"Content-Type", "application/json"}}, .body = out.dump() + "\n"};
}

}  // namespace cake
