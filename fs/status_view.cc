#include "fs/status_view.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "store/base/file.h"
#include "store/base/version.h"

namespace cake {

namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr const char* kLayout = "cake";
constexpr std::string_view kStatus = "status.json";
constexpr std::string_view kEvents = "events";
constexpr std::string_view kRepos = "repos";
constexpr std::string_view kSuffix = ".json";
constexpr size_t kMaxMade = 64;
// A stat and the read after it see one text.
constexpr Millis kMadeFor{1000};

std::string file_of(const RepoName& repo) {
  return cat(repo.type == RepoType::model ? "" : cat(repo_type_plural(repo.type), "/"), repo.id,
             kSuffix);
}

std::string dump(const OrderedJson& json) {
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

double percent(uint64_t part, uint64_t whole) {
  if (whole == 0) return 100;
  const uint64_t tenths = part * 1000 / whole;
  return static_cast<double>(tenths) / 10;
}

}  // namespace

StatusView::StatusView(ViewRows& rows, Metrics& metrics, EventLog& events,
                       StatusViewOptions options)
    : rows_(rows),
      client_(rows.client()),
      metrics_(metrics),
      events_(events),
      options_(std::move(options)) {}

StatusView::~StatusView() {
  MutexLock lock(mutex_);
  while (making_ != 0) idle_.wait(mutex_);
}

Result<NodeFacts> StatusView::top() {
  return names("");
}

bool StatusView::is_moving(uint64_t) const {
  return true;
}

void StatusView::note_open(const ContentRow& content) {
  events_.note_opened(content);
}

// --- names ---

Result<std::string> StatusView::typed_of(uint64_t node) {
  ViewRow row = CAKE_TRY(rows_.get(node_payload(node)));
  return std::move(row.typed);
}

Result<std::vector<std::string>> StatusView::repo_files() {
  std::vector<std::string> files;
  const std::vector<RepoRow> repos = CAKE_TRY(client_.store().index().list_repos(client_.source()));
  for (const RepoRow& repo : repos)
    if (repo.has_snapshot && (!options_.single_repo || *options_.single_repo == repo.name))
      files.push_back(file_of(repo.name));
  return files;
}

Result<NodeFacts> StatusView::find_directory(const std::string& typed) {
  if (typed == kRepos) return names(typed);
  const std::vector<std::string> files = CAKE_TRY(repo_files());
  for (const std::string& file : files)
    if (cat(kRepos, "/", file).starts_with(typed + "/")) return names(typed);
  return no_such(typed);
}

void StatusView::look_up(uint64_t directory, const std::string& name, Deadline,
                         Done<NodeFacts> done) {
  const Result<std::string> above = typed_of(directory);
  if (!above) {
    done(above.error());
    return;
  }
  const std::string typed = above->empty() ? name : cat(*above, "/", name);
  const auto is_repo_file = [&]() -> Result<bool> {
    if (!typed.starts_with(cat(kRepos, "/")) || !typed.ends_with(kSuffix)) return false;
    const std::vector<std::string> files = CAKE_TRY(repo_files());
    return std::find(files.begin(), files.end(), typed.substr(kRepos.size() + 1)) != files.end();
  };
  const Result<bool> is_repo = is_repo_file();
  if (!is_repo) {
    done(is_repo.error());
    return;
  }
  if (typed != kStatus && typed != kEvents && !*is_repo) {
    done(typed.starts_with(kRepos) ? find_directory(typed) : Result<NodeFacts>(no_such(name)));
    return;
  }
  ViewRow row;
  row.layout = kLayout;
  row.source = client_.source();
  row.typed = typed;
  const Result<RowId> id = rows_.id_of(row);
  if (id)
    live_facts(make_node(NodeKind::live, *id), std::move(done));
  else
    done(id.error());
}

void StatusView::list(uint64_t directory, Deadline, Done<ListingPtr> done) {
  const auto list = [&]() -> Result<ListingPtr> {
    const std::string typed = CAKE_TRY(typed_of(directory));
    std::vector<ListedName> names;
    const auto add = [&names](std::string_view name, bool is_directory) {
      for (const ListedName& other : names)
        if (other.name == name) return;
      ListedName& added = names.emplace_back();
      added.name = name;
      added.is_directory = is_directory;
    };
    if (typed.empty()) {
      add(kStatus, false);
      add(kEvents, false);
      add(kRepos, true);
      return moving_listing(std::move(names));
    }
    const std::vector<std::string> files = CAKE_TRY(repo_files());
    const std::string prefix = typed + "/";
    for (const std::string& file : files) {
      const std::string path = cat(kRepos, "/", file);
      if (!path.starts_with(prefix)) continue;
      const std::string_view rest = std::string_view(path).substr(prefix.size());
      const size_t slash = rest.find('/');
      add(rest.substr(0, slash), slash != std::string_view::npos);
    }
    return moving_listing(std::move(names));
  };
  done(list());
}

void StatusView::find_facts(uint64_t node, Deadline, Done<NodeFacts> done) {
  if (node_kind(node) == NodeKind::live) {
    live_facts(node, std::move(done));
    return;
  }
  const Result<std::string> typed = typed_of(node);
  done(typed ? names(*typed) : Result<NodeFacts>(typed.error()));
}

void StatusView::live_facts(uint64_t node, Done<NodeFacts> done) {
  read_text(node, true, [node, done = std::move(done)](const Result<TextPtr>& text) {
    if (!text) {
      done(text.error());
      return;
    }
    NodeFacts facts;
    facts.node = node;
    facts.bytes = (*text)->size();
    facts.mtime = unix_now();
    facts.is_moving = true;
    done(facts);
  });
}

Result<std::vector<std::pair<std::string, std::string>>> StatusView::directory_xattrs(uint64_t) {
  return std::vector<std::pair<std::string, std::string>>{{"user.cake.source", client_.source()}};
}

Result<std::string> StatusView::read_link(uint64_t node) {
  return Error{Errc::invalid, cat("node ", node, " is no link")};
}

// --- texts ---

void StatusView::read_text(uint64_t node, bool is_new, Done<TextPtr> done) {
  const Result<std::string> typed = typed_of(node);
  if (!typed) {
    done(typed.error());
    return;
  }
  if (*typed == kEvents) {
    done(events_.text());
    return;
  }
  TextPtr kept;
  {
    MutexLock lock(mutex_);
    const auto found = made_.find(node);
    if (found != made_.end() && (!is_new || steady_now() - found->second.at < kMadeFor))
      kept = found->second.text;
    else
      making_++;
  }
  if (kept) {
    done(std::move(kept));
    return;
  }
  client_.store().pool().post(ThreadPool::Priority::demand,
                              [this, node, typed = *typed, done = std::move(done)] {
                                Result<TextPtr> text = make_text(typed);
                                if (text) {
                                  MutexLock lock(mutex_);
                                  if (made_.size() >= kMaxMade) made_.clear();
                                  made_[node] = {*text, steady_now()};
                                }
                                done(std::move(text));
                                MutexLock lock(mutex_);
                                if (--making_ == 0) idle_.notify_all();
                              });
}

Result<TextPtr> StatusView::make_text(const std::string& typed) {
  if (typed == kStatus) return std::make_shared<const std::string>(CAKE_TRY(status_json()));
  const std::vector<RepoRow> repos = CAKE_TRY(client_.store().index().list_repos(client_.source()));
  for (const RepoRow& repo : repos)
    if (typed == cat(kRepos, "/", file_of(repo.name)))
      return std::make_shared<const std::string>(CAKE_TRY(repo_json(repo.name)));
  return no_such(typed);
}

Result<std::string> StatusView::status_json() {
  Store& store = client_.store();
  const DiskSpace disk = CAKE_TRY(disk_space(store.directory()));
  const std::vector<std::string> repos = CAKE_TRY(repo_files());
  OrderedJson json;
  json["version"] = version();
  json["source"] = client_.source();
  json["worker"] = getpid();
  json["started"] = format_rfc3339(rows_.mounted_at());
  json["offline"] = client_.is_offline();
  json["hub_answers"] = !client_.is_offline() && !client_.health().is_down();
  json["repos"] = repos.size();
  json["store"] = {{"directory", store.directory()},
                   {"on_disk_bytes", CAKE_TRY(store.disk_bytes())},
                   {"disk_bytes", disk.total_bytes},
                   {"disk_free_bytes", disk.free_bytes}};
  json["counters"] = metrics_.values();
  return dump(json);
}

Result<std::string> StatusView::repo_json(const RepoName& repo) {
  Index& index = client_.store().index();
  const std::optional<RepoRow> row = CAKE_TRY(index.find_repo(client_.source(), repo));
  if (!row) return no_such(repo.id);
  OrderedJson json;
  json["id"] = repo.id;
  json["type"] = repo_type_singular(repo.type);
  json["refs"] = OrderedJson::object();
  const std::vector<RefRow> refs = CAKE_TRY(index.list_refs(row->id));
  for (const RefRow& ref : refs)
    if (!is_commit(ref.revision)) json["refs"][ref.revision] = ref.commit;
  json["revisions"] = OrderedJson::array();
  // Files that several revisions share are counted once in the repo's own sums.
  std::map<RowId, Cached> contents;
  uint64_t bytes = 0;
  Cached sum;
  const std::vector<SnapshotRow> snapshots = CAKE_TRY(index.list_snapshots(row->id));
  for (const SnapshotRow& known : snapshots) {
    const Client::SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(repo, known.commit));
    if (!snapshot) continue;
    Cached of_revision;
    for (uint32_t i = 0; i < snapshot->entries().size(); i++) {
      const RowId content = snapshot->content_id(i);
      if (!contents.contains(content)) {
        contents[content] = CAKE_TRY(index.cached(content));
        bytes += snapshot->entries()[i].bytes;
        sum.bytes += contents[content].bytes;
        sum.stored_bytes += contents[content].stored_bytes;
      }
      of_revision.bytes += contents[content].bytes;
    }
    json["revisions"].push_back({{"commit", known.commit},
                                 {"date", format_rfc3339(known.date)},
                                 {"files", known.files},
                                 {"bytes", known.bytes},
                                 {"cached_bytes", of_revision.bytes},
                                 {"cached_percent", percent(of_revision.bytes, known.bytes)}});
  }
  json["bytes"] = bytes;
  json["cached_bytes"] = sum.bytes;
  json["cached_percent"] = percent(sum.bytes, bytes);
  json["stored_bytes"] = sum.stored_bytes;
  json["saved_bytes"] = sum.bytes - std::min(sum.bytes, sum.stored_bytes);
  return dump(json);
}

}  // namespace cake
