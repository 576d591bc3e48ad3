// cake verify
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <ostream>
#include <set>

#include "fetch/proof.h"
#include "store/base/bytes.h"
#include "store/coverage.h"
#include "store/verify.h"
#include "tools/interrupts.h"
#include "tools/session.h"
#include "tools/table.h"

namespace cake {
namespace {

struct VerifyArguments {
  std::string reference, directory;
  bool repairs = false;
  bool fails_on_missing = false, fails_on_extra = false;
};

// What was found, by file.
struct Findings {
  uint64_t verified = 0;    // the whole-file hash is right
  uint64_t no_hash = 0;     // complete, and the hub gives nothing to compare with
  uint64_t incomplete = 0;  // what is here is right
  uint64_t checked_bytes = 0;
  std::vector<std::string> mismatched, damaged, repaired, missing, extra;

  bool is_good(const VerifyArguments& arguments) const {
    return mismatched.empty() && damaged.empty() &&
           (!arguments.fails_on_missing || missing.empty()) &&
           (!arguments.fails_on_extra || extra.empty());
  }
};

// --- The store ---

class StoreCheck {
 public:
  StoreCheck(Context& context, Session& session, Interrupts& interrupts, bool repairs)
      : context_(context),
        session_(session),
        interrupts_(interrupts),
        repairs_(repairs && !context.globals.dry_run) {
    options_.only_looks = context.globals.dry_run;
    options_.should_stop = [this] { return interrupts_.has_come(); };
  }

  Status check(const StoredFile& target, Findings& findings) {
    const std::optional<ContentRow> content =
        CAKE_TRY(session_.store().index().find_content(target.content));
    if (!content) return {};  // removed meanwhile
    ContentCheck found = CAKE_TRY(check_content(session_.store(), *content, options_));
    findings.checked_bytes += found.checked_bytes;
    const bool is_bad = found.state == ContentCheck::State::mismatch || !found.damaged.empty();
    if (is_bad && repairs_) {
      say(context_, cat(printable(target.name), ": ",
                        found.damaged.empty() ? "wrong hash" : "damaged", ", fetching again"));
      CAKE_TRY(repair(*content, found));
      found = CAKE_TRY(check_content(session_.store(), *content, options_));
      const bool is_right = found.state != ContentCheck::State::mismatch && found.damaged.empty();
      if (is_right) findings.repaired.push_back(target.name);
    }
    if (!found.damaged.empty()) findings.damaged.push_back(target.name);
    switch (found.state) {
      case ContentCheck::State::verified:
        findings.verified++;
        break;
      case ContentCheck::State::mismatch:
        findings.mismatched.push_back(target.name);
        break;
      case ContentCheck::State::no_hash:
        findings.no_hash++;
        break;
      case ContentCheck::State::incomplete:
        if (found.checked_bytes == 0)
          findings.missing.push_back(target.name);
        else
          findings.incomplete++;
        break;
    }
    return {};
  }

 private:
  Status repair(const ContentRow& content, const ContentCheck& found) {
    std::vector<ByteRange> ranges = found.damaged;
    if (found.state == ContentCheck::State::mismatch) {
      CAKE_TRY(reject_content(session_.store(), content));
      ranges = {{0, content.bytes}};
    }
    session_.client().forget(content.id);
    for (const ByteRange& range : ranges)
      CAKE_TRY(fetch_range(session_.client(), content.id, range, options_.should_stop));
    return session_.store().chunks().flush();
  }

  Context& context_;
  Session& session_;
  Interrupts& interrupts_;
  const bool repairs_;
  VerifyOptions options_;
};

// --- Plain files ---

// Hash of a plain file, as the hub would name it.
Result<std::string> hash_file(const std::string& path, FileHash kind, uint64_t bytes,
                              Interrupts& interrupts) {
  const File file = CAKE_TRY(of_this_machine(File::open(path, File::Mode::read)));
  FileHasher hasher(kind, bytes);
  Buffer buffer(kMiB);
  for (uint64_t offset = 0; offset < bytes;) {
    if (interrupts.has_come()) return Error{Errc::cancelled, "interrupted"};
    const size_t got = CAKE_TRY(file.read_at(offset, buffer));
    if (got == 0) break;
    hasher.update(ByteSpan(buffer).subspan(0, got));
    offset += got;
  }
  return hasher.finish_hex();
}

// What clients leave beside the files of a repo.
bool is_bookkeeping(const std::string& path) {
  return path.starts_with(".cache/") || path.starts_with(".git/") || path.ends_with(".part");
}

Status check_folder(Session& session, Interrupts& interrupts, const VerifyArguments& arguments,
                    Findings& findings) {
  const Reference reference = CAKE_TRY(parse_reference(arguments.reference));
  const auto snapshot = CAKE_TRY(session.find_snapshot(reference, false));
  const std::filesystem::path folder(arguments.directory);
  std::set<std::string> known;
  for (const uint32_t i : CAKE_TRY(entries_below(*snapshot, reference.path))) {
    const TreeEntry& entry = snapshot->entries()[i];
    known.insert(entry.path);
    const std::string path = (folder / entry.path).string();
    if (!path_exists(path)) {
      findings.missing.push_back(entry.path);
      continue;
    }
    const std::optional<ContentRow> content =
        CAKE_TRY(session.store().index().find_content(snapshot->content_id(i)));
    const std::optional<WholeHash> hash = content ? whole_hash(*content) : std::nullopt;
    std::error_code failure;
    const uint64_t bytes = std::filesystem::file_size(path, failure);
    // The hash is the last look, and the long one.
    // NOLINTNEXTLINE(bugprone-branch-clone)
    if (failure || bytes != entry.bytes) {
      findings.mismatched.push_back(entry.path);
    } else if (!hash) {
      findings.no_hash++;
    } else if (CAKE_TRY(hash_file(path, hash->kind, bytes, interrupts)) == hash->hex) {
      findings.verified++;
      findings.checked_bytes += bytes;
    } else {
      findings.mismatched.push_back(entry.path);
    }
  }
  std::error_code failure;
  auto entry = std::filesystem::recursive_directory_iterator(
      folder, std::filesystem::directory_options::skip_permission_denied, failure);
  for (; !failure && entry != std::filesystem::recursive_directory_iterator();
       entry.increment(failure)) {
    // What cannot be followed, such as a link in a loop, is no file.
    std::error_code not_followed;
    if (!entry->is_regular_file(not_followed)) continue;
    const std::string path = entry->path().lexically_relative(folder).generic_string();
    if (!known.contains(path) && !is_bookkeeping(path)) findings.extra.push_back(path);
  }
  if (failure)
    return Error{Errc::io, cat("listing ", arguments.directory, ": ", failure.message())};
  std::sort(findings.extra.begin(), findings.extra.end());
  return {};
}

// --- Output ---

void print(Context& context, const Findings& findings) {
  if (context.format == Format::json) {
    Facts facts;
    facts.add("verified", findings.verified);
    facts.add("no_hash", findings.no_hash);
    facts.add("incomplete", findings.incomplete);
    facts.add("bytes", Bytes{findings.checked_bytes});
    facts.add("mismatched", findings.mismatched);
    facts.add("damaged", findings.damaged);
    facts.add("repaired", findings.repaired);
    facts.add("missing", findings.missing);
    facts.add("extra", findings.extra);
    facts.print(Format::json, context.out);
    return;
  }
  const auto list = [&](const char* what, const std::vector<std::string>& names) {
    for (const std::string& name : names) context.out << what << '\t' << printable(name) << '\n';
  };
  list("mismatched", findings.mismatched);
  list("damaged", findings.damaged);
  if (context.format == Format::quiet) return;
  list("repaired", findings.repaired);
  list("missing", findings.missing);
  list("extra", findings.extra);
  context.out << "Verified " << findings.verified << " file(s)";
  if (findings.incomplete > 0) context.out << ", " << findings.incomplete << " in part";
  if (findings.no_hash > 0) context.out << ", " << findings.no_hash << " without a known hash";
  context.out << ", " << format_size(findings.checked_bytes) << '\n';
}

int run_verify(Context& context, const VerifyArguments& arguments) {
  Interrupts interrupts;
  const auto session = CAKE_TRY_RUN(context, Session::open(context.config));
  Findings findings;
  if (!arguments.directory.empty()) {
    std::error_code failure;
    if (!std::filesystem::is_directory(arguments.directory, failure))
      return fail(context, {Errc::not_found, cat(arguments.directory, " is not a directory")});
    CAKE_TRY_RUN(context, check_folder(*session, interrupts, arguments, findings));
  } else {
    std::vector<std::string> references;
    if (!arguments.reference.empty()) references.push_back(arguments.reference);
    const std::vector<StoredFile> targets =
        CAKE_TRY_RUN(context, list_stored_files(*session, references));
    StoreCheck check(context, *session, interrupts, arguments.repairs);
    for (const StoredFile& target : targets) CAKE_TRY_RUN(context, check.check(target, findings));
  }
  print(context, findings);
  return findings.is_good(arguments) ? kExitOk : kExitFailed;
}

}  // namespace

void add_verify(CLI::App& app, Run& run) {
  CLI::App* verb =
      app.add_subcommand("verify", "Compare what is stored with the hashes it is named by");
  const auto arguments = std::make_shared<VerifyArguments>();
  verb->add_option("REF", arguments->reference, "Only this repo, folder or file");
  verb->add_option("DIR", arguments->directory,
                   "Compare the plain files below this folder, not the store");
  verb->add_flag("--repair", arguments->repairs, "Fetch again what is damaged or wrong");
  verb->add_flag("--fail-on-missing-files", arguments->fails_on_missing,
                 "Status 1 when a file is not there");
  verb->add_flag("--fail-on-extra-files", arguments->fails_on_extra,
                 "Status 1 when DIR has files that the repo does not");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_verify(context, *arguments); };
  });
}

}  // namespace cake
