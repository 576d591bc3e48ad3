// The part of Client that knows authors: who there is, and what repos they have.
#include <algorithm>

#include "fetch/client.h"
#include "fetch/once_done.h"
#include "store/base/log.h"

namespace cake {

namespace {

// A hub that answers, but not with a list, may serve repos by name all the same.
bool may_have_repos(Errc listing_failed) {
  return listing_failed == Errc::unsupported || listing_failed == Errc::upstream ||
         listing_failed == Errc::denied || listing_failed == Errc::rate_limited;
}

Error absent_author(const std::string& author) {
  return {Errc::not_found, cat(author, ": no such author, or no repo of theirs is visible")};
}

}  // namespace

Result<std::vector<std::string>> Client::known_repos_of(RepoType type, const std::string& author) {
  std::vector<std::string> ids;
  const std::vector<RepoRow> repos = CAKE_TRY(store_.index().list_repos(source_));
  for (const RepoRow& repo : repos)
    if (repo.name.type == type && repo.name.id.starts_with(author + "/") && repo.has_snapshot)
      ids.push_back(repo.name.id);
  return ids;
}

Result<std::vector<std::string>> Client::known_authors(RepoType type) {
  std::set<std::string> authors;
  const std::vector<RepoRow> repos = CAKE_TRY(store_.index().list_repos(source_));
  for (const RepoRow& repo : repos) {
    const size_t slash = repo.name.id.find('/');
    if (repo.name.type == type && repo.has_snapshot && slash != std::string::npos)
      authors.insert(repo.name.id.substr(0, slash));
  }
  return std::vector<std::string>(authors.begin(), authors.end());
}

Result<Client::KnownAuthor> Client::known_author(RepoType type, const std::string& author) {
  if (!is_valid_repo_part(author))
    return Error{Errc::not_found, cat(author, " is not a name a hub can have")};
  KnownAuthor known{CAKE_TRY(known_repos_of(type, author))};
  // A listing may be empty: "no such author", remembered like an absent repo.
  if (const auto listing = CAKE_TRY(store_.index().find_author(source_, type, author))) {
    known.is_listed_lately = unix_now() - listing->listed_at < options_.listing_ttl_s;
    known.ids.insert(known.ids.end(), listing->ids.begin(), listing->ids.end());
  }
  std::sort(known.ids.begin(), known.ids.end());
  known.ids.erase(std::unique(known.ids.begin(), known.ids.end()), known.ids.end());
  if (known.ids.empty() && known.is_listed_lately) return absent_author(author);
  if (known.ids.empty() && is_offline())
    return Error{Errc::offline,
                 cat(author, " is not in the store, and the network is off (offline=yes)")};
  return known;
}

void Client::list_author(RepoType type, const std::string& author, Deadline deadline,
                         Done<std::vector<std::string>> done) {
  Result<KnownAuthor> known = known_author(type, author);
  if (!known) {
    done(std::move(known).error());
    return;
  }
  if (!known->ids.empty()) {
    done(std::move(known->ids));
    if (!known->is_listed_lately && !is_offline())
      ask_for_listing(type, author, ListPart::all, deadline, [](const Result<RepoList>&) {});
    return;
  }
  ask_for_listing(type, author, ListPart::all, deadline,
                  [author, done = std::move(done)](Result<RepoList> list) {
                    if (!list)
                      done(std::move(list).error());
                    else if (list->ids.empty())
                      done(absent_author(author));
                    else
                      done(std::move(list->ids));
                  });
}

void Client::find_author(RepoType type, const std::string& author, Deadline deadline,
                         Done<std::monostate> done) {
  const Result<KnownAuthor> known = known_author(type, author);
  if (!known) {
    done(known.error());
    return;
  }
  if (!known->ids.empty()) {
    done(std::monostate{});
    return;
  }
  ask_for_listing(type, author, ListPart::first_page, deadline,
                  [author, done = std::move(done)](const Result<RepoList>& list) {
                    if (list && list->ids.empty() && list->is_whole)
                      done(absent_author(author));
                    else if (list || may_have_repos(list.error().code))
                      done(std::monostate{});
                    else
                      done(list.error());
                  });
}

void Client::ask_for_listing(RepoType type, const std::string& author, ListPart part,
                             Deadline deadline, Done<RepoList> done) {
  const ListingKey key{type, author, part};
  const OnceDone<RepoList> once(std::move(done));
  // A list has any number of pages; who asked hears at the deadline, and it goes on behind.
  if (part == ListPart::all && !deadline.is_never()) {
    const auto left = std::chrono::ceil<Millis>(deadline.at() - steady_now());
    upstream_->after(std::max(Millis(0), left) + kAnswerSlack, [author, once] {
      once(Error{Errc::timeout, author + ": the hub has not listed all repos yet"});
    });
  }
  if (!listings_.join(key, [once](Result<RepoList> list) { once(std::move(list)); })) return;
  upstream_->list_repos(type, author, part, deadline, [this, key](Result<RepoList> list) {
    if (!list) {
      fetcher_->health().failed(list.error().code);
      // No such author is an answer, and is remembered as one.
      if (list.error().code == Errc::not_found)
        list = RepoList{};
      else if (key.part == ListPart::all || !may_have_repos(list.error().code))
        log_failure(key.author, list.error());  // else the look-up of the repo says it
    }
    if (!list) {
      listings_.finish(key, list);
      return;
    }
    fetcher_->health().succeeded();
    std::erase_if(list->ids, [&, prefix = key.author + "/"](const std::string& id) {
      return !is_valid_repo_id(id) || !id.starts_with(prefix);
    });
    if (!list->is_whole) {
      listings_.finish(key, list);
      return;
    }
    auto kept = std::make_shared<Result<RepoList>>(std::move(list));
    const bool is_posted = fetcher_->post(ThreadPool::Priority::demand, [this, key, kept] {
      const Status stored =
          store_.index().put_author(source_, key.type, key.author, {(*kept)->ids, unix_now()});
      if (!stored.ok()) log_warn(stored.error().with("remembering a listing").message);
      listings_.finish(key, *kept);
    });
    if (!is_posted) listings_.finish(key, *kept);
  });
}

}  // namespace cake
