#include "tools/session.h"

#include <algorithm>
#include <set>

#include "fetch/credentials.h"
#include "fetch/hub.h"
#include "store/base/version.h"
#include "store/materialize.h"

namespace cake {
namespace {

CodecChoice codec_choice(const std::string& name) {
  if (name == "raw") return CodecChoice::raw;
  if (name == "zstd") return CodecChoice::zstd;
  if (name == "rans") return CodecChoice::rans;
  return CodecChoice::automatic;
}

Offline offline_choice(const std::string& name) {
  if (name == "yes") return Offline::yes;
  if (name == "no") return Offline::no;
  return Offline::automatic;
}

Prefetch prefetch_choice(const std::string& name) {
  if (name == "off") return Prefetch::off;
  if (name == "tensor") return Prefetch::tensor;
  if (name == "file") return Prefetch::file;
  if (name == "repo") return Prefetch::repo;
  return Prefetch::automatic;
}

// Who waits for a command is to be told; a mount's readers know nothing of a network.  The retries
// are about a minute of a hub that refuses: a pull outlives a hub that starts again, or a slow
// link.
void be_soft(const Config& config, FetchOptions& options) {
  constexpr unsigned kCommandRetrans = 15;
  options.is_hard = false;
  options.limits_attempts = false;
  if (!config.is_set("retrans")) options.retrans = kCommandRetrans;
}

}  // namespace

StoreOptions store_options(const Config& config) {
  StoreOptions options;
  options.directory = config.store_directory();
  options.codec = codec_choice(config.text("codec"));
  options.mem_cache_bytes = config.size("mem_cache");
  options.cache_size = config.percent_size("cache_size");
  options.min_free = config.percent_size("min_free");
  return options;
}

HttpOptions http_options(const Config& config) {
  HttpOptions options;
  options.max_conns = static_cast<unsigned>(std::max<uint64_t>(1, *config.count("max_conns")));
  options.proxy = config.text("proxy");
  options.ca_file = config.text("cafile");
  options.user_agent = cat("cakefs/", version());
  return options;
}

ShownChoice shown_choice(const Config& config) {
  return {config.text("subdir"), config.globs("include"), config.globs("exclude")};
}

ClientOptions client_options(const Config& config) {
  ClientOptions options;
  options.fetch.is_hard = config.boolean("hard");
  options.fetch.timeo = Millis(1000 * std::max<uint64_t>(1, *config.seconds("timeo")));
  options.fetch.retrans = static_cast<unsigned>(*config.count("retrans"));
  // A quarter of the connections is for those who wait.
  options.fetch.max_transfers =
      static_cast<unsigned>(std::clamp<uint64_t>(*config.count("max_conns") * 3 / 4, 2, 4096));
  options.fetch.readahead.max_window_bytes = config.size("readahead");
  options.fetch.readahead.prefetch =
      config.size("readahead") > 0 ? prefetch_choice(config.text("prefetch")) : Prefetch::off;
  options.offline = offline_choice(config.text("offline"));
  if (const std::optional<uint64_t> refresh = config.seconds("refresh"))
    options.refresh_s = static_cast<int64_t>(*refresh);
  options.negative_ttl_s = static_cast<int64_t>(*config.seconds("neg_ttl"));
  options.prefetches = [choice = shown_choice(config)](const std::string& path) {
    return choice.shows(path);
  };
  return options;
}

Result<std::unique_ptr<Store>> open_store(const Config& config, Metrics& metrics) {
  std::unique_ptr<Store> store =
      CAKE_TRY(of_this_machine(Store::open(store_options(config), metrics)));
  CAKE_TRY(of_this_machine(recover_materialized(*store)));
  return store;
}

Result<std::unique_ptr<Session>> Session::open(const Config& config, For use) {
  std::unique_ptr<Session> session(new Session());
  session->default_revision_ = config.text("rev");
  ClientOptions options = client_options(config);
  options.fetch.logs_failures = use == For::mount;
  options.records_refs = use != For::look;
  if (use != For::mount && !config.is_set("hard")) be_soft(config, options.fetch);
  session->metrics_ = std::make_unique<Metrics>();
  session->store_ = CAKE_TRY(open_store(config, *session->metrics_));
  const Url endpoint = CAKE_TRY(parse_endpoint(config.text("endpoint")));
  std::unique_ptr<Upstream> upstream;
  if (options.offline != Offline::yes) {
    session->http_ = std::make_unique<HttpClient>(http_options(config), *session->metrics_);
    HubOptions hub;
    hub.endpoint = endpoint;
    hub.tells_retries = use != For::mount;
    upstream = std::make_unique<HubUpstream>(
        *session->http_, hub, std::make_shared<Credentials>(config.text("token_file")),
        *session->metrics_);
  }
  // Offline as online, names belong to the same source.
  session->client_ = std::make_unique<Client>(*session->store_, cat("hf:", endpoint.str()),
                                              std::move(upstream), options, *session->metrics_);
  return session;
}

Session::~Session() {
  stop();
}

void Session::stop() {
  if (client_) client_->stop();
  // Ends the calls under way, whose answers go to the client.
  if (http_) http_->stop();
}

Result<std::shared_ptr<const Snapshot>> Session::find_snapshot(const Reference& reference,
                                                               bool ask_hub) {
  return wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
    // A command waits for the whole of a list, each page of which has `timeo`.
    client_->find_snapshot(reference.repo, revision_of(reference), ask_hub, Deadline::never(),
                           std::move(done));
  });
}

Status Session::record(const Reference& reference, const Snapshot& snapshot) {
  // What the store gave, because the hub did not answer, is no news of the hub.
  const RowId repo = CAKE_TRY(store_->index().get_repo(client_->source(), reference.repo));
  const auto known = CAKE_TRY(store_->index().find_ref(repo, revision_of(reference)));
  if (known && known->commit == snapshot.commit()) return {};
  return client_->record_ref(reference.repo, revision_of(reference), snapshot.commit());
}

Result<std::vector<uint32_t>> entries_below(const Snapshot& snapshot, const std::string& path) {
  std::vector<uint32_t> found;
  const std::vector<TreeEntry>& entries = snapshot.entries();
  const std::string folder = path.empty() ? "" : path + "/";
  for (uint32_t i = 0; i < entries.size(); i++)
    if (entries[i].path == path || entries[i].path.starts_with(folder)) found.push_back(i);
  if (found.empty() && !path.empty())
    return Error{Errc::not_found,
                 cat(snapshot.repo().id, "@", snapshot.commit(), " has no ", path)};
  return found;
}

Result<std::vector<StoredFile>> list_stored_files(Session& session,
                                                  std::span<const std::string> references) {
  std::vector<StoredFile> files;
  Index& index = session.store().index();
  if (references.empty()) {
    for (const RowId id : CAKE_TRY(index.list_known_contents()))
      if (const std::optional<ContentRow> content = CAKE_TRY(index.find_content(id)))
        files.push_back({Reference{content->repo, content->commit, content->path}.text(), id});
    return files;
  }
  std::set<RowId> seen;
  for (const std::string& word : references) {
    const Reference reference = CAKE_TRY(parse_reference(word));
    const auto snapshot = CAKE_TRY(session.find_snapshot(reference, false));
    for (const uint32_t i : CAKE_TRY(entries_below(*snapshot, reference.path)))
      if (seen.insert(snapshot->content_id(i)).second)
        files.push_back(
            {Reference{snapshot->repo(), snapshot->commit(), snapshot->entries()[i].path}.text(),
             snapshot->content_id(i)});
  }
  return files;
}

}  // namespace cake
