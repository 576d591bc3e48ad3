// cake import
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <ostream>
#include <set>

#include "fetch/hub_content.h"
#include "store/adopt_file.h"
#include "store/base/bytes.h"
#include "store/coverage.h"
#include "store/twin.h"
#include "store/verify.h"
#include "tools/block_sharing.h"
#include "tools/hf_cache.h"
#include "tools/interrupts.h"
#include "tools/pull_plan.h"
#include "tools/session.h"
#include "tools/table.h"

namespace cake {
namespace {

// Files of at least this size are in LFS on hubs, whatever their name.
constexpr uint64_t kLfsThresholdBytes = 10 * kMiB;

struct ImportArguments {
  std::string folder, name;
  bool replaces = false;
};

struct ImportSums {
  uint64_t files = 0, bytes = 0;
  uint64_t adopted = 0, adopted_bytes = 0;
  uint64_t here = 0, here_bytes = 0;
  uint64_t replaced_bytes = 0;
  uint64_t refused = 0;  // their hash is not what their name says
};

void say_no_file(Context& context, const std::string& path, const RepoName& repo,
                 const std::string& commit) {
  say(context, cat(printable(path), ": not a file of ", repo.id, "@", commit, "; left out"));
}

// Takes files in, one after the other; the store hashes and encodes on several threads.
class Importer {
 public:
  Importer(Context& context, Session& session, Interrupts& interrupts)
      : context_(context), session_(session), interrupts_(interrupts) {}

  // From here on what is in the store takes the place of the files it came from.
  void replace_by(BlockSharing sharing) { sharing_.emplace(std::move(sharing)); }

  // What taking a file in would come to; writes nothing.  `known`: the commit, where the store has
  // its list.
  Status count(const RepoName& repo, const std::string& commit, const TreeEntry& entry,
               const Snapshot* known, ImportSums& sums) {
    ContentRow content;  // of no row: what is here of it is another's with the same hash
    content.key = content_key(repo, commit, entry);
    content.bytes = entry.bytes;
    content.ids = entry.ids;
    sums.files++;
    sums.bytes += entry.bytes;
    if (!whole_hash(content)) {
      say(context_,
          cat(printable(entry.path), ": the hub gives no hash to compare with; left out"));
      sums.refused++;
      return {};
    }
    Index& index = session_.store().index();
    bool is_here = entry.bytes > 0 && CAKE_TRY(twin_bytes(index, content)) == entry.bytes;
    const std::optional<uint32_t> at =
        known == nullptr ? std::nullopt : known->find_entry(entry.path);
    if (const auto row = at && !is_here ? CAKE_TRY(index.find_content(known->content_id(*at)))
                                        : std::optional<ContentRow>())
      is_here = CAKE_TRY(missing_ranges(index, *row)).empty();
    (is_here ? sums.here : sums.adopted)++;
    (is_here ? sums.here_bytes : sums.adopted_bytes) += entry.bytes;
    return {};
  }

  Status take(const Snapshot& snapshot, const std::string& path, const std::string& where,
              ImportSums& sums) {
    const std::optional<uint32_t> entry = snapshot.find_entry(path);
    if (!entry) {
      say_no_file(context_, path, snapshot.repo(), snapshot.commit());
      sums.refused++;
      return {};
    }
    const std::optional<ContentRow> content =
        CAKE_TRY(session_.store().index().find_content(snapshot.content_id(*entry)));
    if (!content) return Error{Errc::corrupt, cat("index: no content for ", path)};
    sums.files++;
    sums.bytes += content->bytes;
    if (!whole_hash(*content)) {
      say(context_, cat(printable(path), ": the hub gives no hash to compare with; left out"));
      sums.refused++;
      return {};
    }
    const File file = CAKE_TRY(of_this_machine(File::open(where, File::Mode::read)));
    struct stat seen {};  // before it is read: what is written from here on shows
    if (::fstat(file.fd(), &seen) != 0) return last_error(cat("stat ", where));
    const Adoption done = CAKE_TRY(
        adopt_file(session_.store(), *content, file, [this] { return interrupts_.has_come(); }));
    switch (done.state) {
      case Adoption::State::adopted:
        sums.adopted++;
        sums.adopted_bytes += done.bytes;
        break;
      case Adoption::State::already_here:
        sums.here++;
        sums.here_bytes += done.bytes;
        break;
      case Adoption::State::mismatch:
        say(context_, cat(printable(where), ": its bytes are not what it is named by; left out"));
        sums.refused++;
        return {};
    }
    return sharing_ ? replace(*entry, *content, snapshot, where, seen, done.state, sums) : Status();
  }

 private:
  // The blob behind a snapshot's link, once, if it is what the store has.
  Status replace(uint32_t entry, const ContentRow& content, const Snapshot& snapshot,
                 const std::string& where, const struct stat& seen, Adoption::State state,
                 ImportSums& sums) {
    std::error_code failure;
    const std::string target = std::filesystem::canonical(where, failure).string();
    if (failure) return errno_error(failure.value(), where);
    if (!replaced_.insert(target).second) return {};
    // Adopting has read and compared it; what was here already was believed its name.
    if (state == Adoption::State::already_here &&
        !CAKE_TRY(has_hub_bytes(target, snapshot.entries()[entry]))) {
      say(context_, cat(printable(where), ": its bytes are not what it is named by; not replaced"));
      sums.refused++;
      return {};
    }
    CAKE_TRY(session_.store().chunks().flush());
    const BlockSharing::Seen checked{seen, snapshot.entries()[entry]};
    switch (CAKE_TRY(sharing_->put(content.id, target, &checked))) {
      case BlockSharing::Put::done:
        sums.replaced_bytes += content.bytes;
        break;
      case BlockSharing::Put::not_possible:
        break;
      case BlockSharing::Put::damaged:
        say(context_, cat(printable(where),
                          ": the store's copy is damaged; not replaced (`cake verify` drops it)"));
        sums.refused++;
        break;
      case BlockSharing::Put::target_changed:
        say(context_, cat(where, ": it was written to meanwhile; not replaced"));
        sums.refused++;
        break;
    }
    return {};
  }

  Context& context_;
  Session& session_;
  Interrupts& interrupts_;
  std::optional<BlockSharing> sharing_;
  std::set<std::string> replaced_;
};

Table import_table() {
  return Table({{"REPO"},
                {"COMMIT"},
                {"FILES", true},
                {"SIZE", true},
                {"ADOPTED", true},
                {"ALREADY THERE", true},
                {"LEFT OUT", true},
                {"SOURCE"},
                {"REPLACED", true}});
}

void add_row(Table& table, const RepoName& repo, const std::string& commit, const ImportSums& sums,
             const std::string& source) {
  table.add({cat(repo_type_singular(repo.type), "/", repo.id), commit, sums.files,
             Bytes{sums.bytes}, Bytes{sums.adopted_bytes}, Bytes{sums.here_bytes}, sums.refused,
             source, Bytes{sums.replaced_bytes}});
}

// A commit's listing, put into the index under a source.
Result<std::shared_ptr<const Snapshot>> record(Session& session, const std::string& source,
                                               const RepoName& repo, const std::string& commit,
                                               int64_t date, std::vector<TreeEntry> entries) {
  Index& index = session.store().index();
  const RowId row = CAKE_TRY(index.get_repo(source, repo));
  auto snapshot = CAKE_TRY(index.find_snapshot(row, commit));
  if (!snapshot) {
    snapshot = CAKE_TRY(index.put_snapshot(row, commit, date, std::move(entries)));
    CAKE_TRY(session.store().chunks().record_snapshot(source, *snapshot));
  }
  return snapshot;
}

Status record_ref(Session& session, const std::string& source, const RepoName& repo,
                  const RefRow& ref) {
  Index& index = session.store().index();
  const RowId row = CAKE_TRY(index.get_repo(source, repo));
  // What the store resolved itself is younger.
  if (CAKE_TRY(index.find_ref(row, ref.revision))) return {};
  CAKE_TRY(index.put_ref(row, ref));
  return session.store().chunks().record_ref(source, repo, ref);
}

// --- A Hugging Face cache ---

// Only what is in the cache, for when nobody can say what the commit holds.
std::vector<TreeEntry> partial_listing(const HfCachedRevision& revision) {
  std::vector<TreeEntry> entries;
  for (const HfCachedFile& file : revision.files) {
    TreeEntry entry{file.path, file.bytes, {}};
    if (file.etag.size() == 64) entry.ids.sha256 = file.etag;
    if (file.etag.size() == 40) entry.ids.git_oid = file.etag;
    entries.push_back(std::move(entry));
  }
  return entries;
}

struct Listing {
  std::shared_ptr<const Snapshot> snapshot;  // nullptr: of a dry run, and not known yet
  std::string source;
  std::vector<TreeEntry> entries;  // where there is no snapshot
};

// As find_listing, of what is here: asking the hub would put its answer into the store.
Result<Listing> plan_listing(Session& session, const HfCachedRepo& repo,
                             const HfCachedRevision& revision) {
  const std::string& source = session.client().source();
  if (auto known = CAKE_TRY(session.client().find_known_snapshot(repo.repo, revision.commit)))
    return Listing{known, source, known->entries()};
  return Listing{nullptr, source, revision.tree ? *revision.tree : partial_listing(revision)};
}

// The first listing of a commit stays, so it must be whole: from the store, the cache, or the hub.
// Else the files go under a source of their own, and are found by their hashes later.
Result<Listing> find_listing(Context& context, Session& session, const std::string& folder,
                             const HfCachedRepo& repo, const HfCachedRevision& revision) {
  const std::string& source = session.client().source();
  if (auto known = CAKE_TRY(session.client().find_known_snapshot(repo.repo, revision.commit)))
    return Listing{known, source, {}};
  if (revision.tree)
    return Listing{
        CAKE_TRY(record(session, source, repo.repo, revision.commit, unix_now(), *revision.tree)),
        source,
        {}};
  const auto asked = session.find_snapshot({repo.repo, revision.commit, ""}, false);
  if (asked) return Listing{*asked, source, {}};
  if (asked.error().code == Errc::cancelled) return asked.error();
  say(context, cat(repo.repo.id, "@", revision.commit, ": the hub does not say what it holds (",
                   asked.error().message, "); its files are taken without that name"));
  const std::string own = cat("import:", folder);
  return Listing{CAKE_TRY(record(session, own, repo.repo, revision.commit, unix_now(),
                                 partial_listing(revision))),
                 own,
                 {}};
}

Status take_revision(Importer& importer, const Listing& listing, const HfCachedRevision& revision,
                     ImportSums& sums) {
  for (const HfCachedFile& file : revision.files)
    CAKE_TRY(importer.take(*listing.snapshot, file.path, file.where, sums));
  return {};
}

Status count_revision(Context& context, Importer& importer, const Listing& listing,
                      const HfCachedRepo& repo, const HfCachedRevision& revision,
                      ImportSums& sums) {
  std::map<std::string_view, const TreeEntry*> by_path;
  for (const TreeEntry& entry : listing.entries) by_path.emplace(entry.path, &entry);
  for (const HfCachedFile& file : revision.files) {
    const auto found = by_path.find(file.path);
    if (found == by_path.end()) {
      say_no_file(context, file.path, repo.repo, revision.commit);
      sums.refused++;
      continue;
    }
    CAKE_TRY(
        importer.count(repo.repo, revision.commit, *found->second, listing.snapshot.get(), sums));
  }
  return {};
}

Status import_cache(Context& context, Session& session, Importer& importer,
                    const std::string& folder, const std::vector<HfCachedRepo>& repos, Table& table,
                    ImportSums& total) {
  for (const HfCachedRepo& repo : repos) {
    for (const HfCachedRevision& revision : repo.revisions) {
      const bool only_counts = context.globals.dry_run;
      const Listing listing =
          CAKE_TRY(only_counts ? plan_listing(session, repo, revision)
                               : find_listing(context, session, folder, repo, revision));
      ImportSums sums;
      CAKE_TRY(only_counts ? count_revision(context, importer, listing, repo, revision, sums)
                           : take_revision(importer, listing, revision, sums));
      add_row(table, repo.repo, revision.commit, sums, listing.source);
      total.adopted_bytes += sums.adopted_bytes;
      total.here_bytes += sums.here_bytes;
      total.replaced_bytes += sums.replaced_bytes;
      total.files += sums.files;
      total.refused += sums.refused;
      for (const auto& [name, commit] : repo.refs)
        if (commit == revision.commit && !only_counts)
          CAKE_TRY(record_ref(session, listing.source, repo.repo, {name, commit, unix_now()}));
    }
    if (repo.skipped > 0)
      say(context, cat(repo.repo.id, ": ", repo.skipped,
                       " incomplete download(s) or broken link(s) left out"));
  }
  return {};
}

// --- A plain folder ---

// "imported/NAME", with what no repo's name can have left out.
Result<RepoName> name_folder(const std::string& folder, const std::string& wanted) {
  std::string id = wanted;
  if (id.empty()) {
    id = "imported/";
    for (const char letter : std::filesystem::path(folder).filename().string())
      id += is_valid_repo_part(std::string(1, letter)) || letter == '_' ? letter : '_';
  }
  if (!is_valid_repo_id(id))
    return Error{Errc::invalid, cat("'", id, "' is no name of a repo; give --name ORG/NAME")};
  return RepoName{RepoType::model, id};
}

Result<std::vector<HubFile>> hash_folder(const std::string& folder, Interrupts& interrupts) {
  std::vector<std::string> paths;
  std::error_code failure;
  for (auto entry = std::filesystem::recursive_directory_iterator(folder, failure);
       !failure && entry != std::filesystem::recursive_directory_iterator();
       entry.increment(failure)) {
    const std::string path = entry->path().lexically_relative(folder).generic_string();
    if (path == ".git" || path == ".cache") entry.disable_recursion_pending();
    std::error_code other;
    if (entry->is_regular_file(other) && is_valid_repo_path(path)) paths.push_back(path);
  }
  if (failure) return Error{Errc::io, cat("listing ", folder, ": ", failure.message())};
  std::sort(paths.begin(), paths.end());
  std::vector<HubFile> files;
  Buffer buffer(kMiB);
  for (const std::string& path : paths) {
    const File file =
        CAKE_TRY(of_this_machine(File::open(cat(folder, "/", path), File::Mode::read)));
    const uint64_t bytes = CAKE_TRY(file.size());
    const bool is_lfs = is_lfs_file(path, bytes, kLfsThresholdBytes);
    FileHasher hasher(is_lfs ? FileHash::sha256 : FileHash::git_blob_sha1, bytes);
    for (uint64_t offset = 0; offset < bytes;) {
      if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted"};
      const size_t got = CAKE_TRY(file.read_at(offset, buffer));
      if (got == 0) break;
      hasher.update(ByteSpan(buffer).first(got));
      offset += got;
    }
    HubFile found;
    found.entry = {path, bytes, ids_from_hash(hasher.finish_hex(), is_lfs, bytes)};
    files.push_back(std::move(found));
  }
  return files;
}

Status import_folder(Context& context, Session& session, Importer& importer, Interrupts& interrupts,
                     const ImportArguments& arguments, Table& table, ImportSums& total) {
  std::error_code failure;
  const std::string folder = std::filesystem::canonical(arguments.folder, failure).string();
  if (failure) return Error{Errc::not_found, cat(arguments.folder, ": ", failure.message())};
  const RepoName repo = CAKE_TRY(name_folder(folder, arguments.name));
  const std::vector<HubFile> files = CAKE_TRY(hash_folder(folder, interrupts));
  if (files.empty()) return Error{Errc::not_found, cat("no file is below ", folder)};
  std::vector<TreeEntry> entries;
  entries.reserve(files.size());
  for (const HubFile& file : files) entries.push_back(file.entry);
  const std::string source = cat("import:", folder);
  const std::string commit = commit_of(files);
  if (context.globals.dry_run) {
    const auto row = CAKE_TRY(session.store().index().find_repo(source, repo));
    const auto known =
        row ? CAKE_TRY(session.store().index().find_snapshot(row->id, commit)) : nullptr;
    for (const TreeEntry& entry : entries)
      CAKE_TRY(importer.count(repo, commit, entry, known.get(), total));
  } else {
    const auto snapshot =
        CAKE_TRY(record(session, source, repo, commit, unix_now(), std::move(entries)));
    for (const HubFile& file : files)
      CAKE_TRY(importer.take(*snapshot, file.entry.path, cat(folder, "/", file.entry.path), total));
    CAKE_TRY(record_ref(session, source, repo, {"main", commit, unix_now()}));
  }
  add_row(table, repo, commit, total, source);
  return {};
}

int run_import(Context& context, ImportArguments arguments) {
  Interrupts interrupts;
  if (arguments.folder.empty()) arguments.folder = default_hf_cache();
  std::error_code failure;
  if (!std::filesystem::is_directory(arguments.folder, failure))
    return fail(context, {Errc::not_found, cat(arguments.folder, " is not a directory")});
  const auto repos = CAKE_TRY_RUN(context, scan_hf_cache(arguments.folder));
  // What is called by it must be called so whatever the working directory is.
  const std::string folder = std::filesystem::canonical(arguments.folder, failure).string();
  if (failure) return fail(context, errno_error(failure.value(), arguments.folder));
  const auto session = CAKE_TRY_RUN(
      context, Session::open(context.config,
                             context.globals.dry_run ? Session::For::look : Session::For::command));
  Importer importer(context, *session, interrupts);
  if (arguments.replaces && !context.globals.dry_run) {
    BlockSharing sharing = CAKE_TRY_RUN(context, BlockSharing::open(context, session->store()));
    CAKE_TRY_RUN(context, sharing.check(arguments.folder));
    importer.replace_by(std::move(sharing));
  }
  Table table = import_table();
  ImportSums total;
  if (repos)
    CAKE_TRY_RUN(context, import_cache(context, *session, importer, folder, *repos, table, total));
  else
    CAKE_TRY_RUN(context,
                 import_folder(context, *session, importer, interrupts, arguments, table, total));
  CAKE_TRY_RUN(context, session->store().chunks().flush());
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  if (context.format == Format::human)
    context.out << format_size(total.adopted_bytes) << " adopted, " << format_size(total.here_bytes)
                << " already there; new on disk: "
                << format_size(session->metrics().counter("store.bytes_written").value())
                << (arguments.replaces
                        ? cat("; ", format_size(total.replaced_bytes), " replaced by shared blocks")
                        : "")
                << '\n';
  return total.refused == 0 ? kExitOk : kExitFailed;
}

}  // namespace

void add_import(CLI::App& app, Run& run) {
  CLI::App* verb =
      app.add_subcommand("import", "Take in a Hugging Face cache, or a folder of plain files");
  const auto arguments = std::make_shared<ImportArguments>();
  verb->add_option("DIR", arguments->folder,
                   "The cache, a repo in it, or a folder; default the cache of this user");
  verb->add_option("--name", arguments->name, "What a plain folder is called")
      ->type_name("ORG/NAME");
  verb->add_flag("--replace", arguments->replaces,
                 "Let the files taken in share their blocks with the store (XFS, Btrfs)");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_import(context, *arguments); };
  });
}

}  // namespace cake
