#include "fetch/hub.h"

#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "fetch/hub_reader.h"

namespace cake {
namespace {

constexpr size_t kMaxPages = 20'000;
constexpr size_t kMaxItems = 2'000'000;
constexpr uint64_t kMaxListBytes = kGiB;

std::string api_path(const RepoName& repo, std::string_view call, const std::string& revision) {
  return cat("/api/", repo_type_plural(repo.type), "/", encode_path(repo.id), "/", call, "/",
             encode_segment(revision));
}

// A list that comes in pages, each naming the next by a Link.  `Item` is what it is a list of.
template <typename Item>
class Paging : public std::enable_shared_from_this<Paging<Item>> {
 public:
  using Parse = Status (*)(std::string_view page, std::vector<Item>& items);

  // `is_whole`: whether no page was left out.
  using Taken = std::function<void(Result<std::vector<Item>>, bool is_whole)>;

  Paging(std::shared_ptr<HubSession> session, HubQuestion question, ListPart part,
         Deadline deadline, Parse parse, Taken done)
      : session_(std::move(session)),
        question_(std::move(question)),
        part_(part),
        deadline_(std::move(deadline)),
        patience_(std::chrono::ceil<Millis>(deadline_.is_never() ? Millis(0)
                                                                 : deadline_.at() - steady_now())),
        parse_(parse),
        done_(std::move(done)) {}

  void ask(const Url& url) {
    // A hub that leads us in a circle would do so for ever.
    if (!seen_.insert(url.str()).second) return fail("the list's pages go in a circle");
    if (seen_.size() > kMaxPages) return fail("the list has too many pages");
    auto check = [self = this->shared_from_this()](const HubSession::Answer& answer) {
      self->page_.clear();
      return self->parse_(answer.http.body, self->page_);
    };
    session_->get(url, question_, deadline_.renewed(patience_), std::move(check),
                  [self = this->shared_from_this()](Result<HubSession::Answer> answer) {
                    if (!answer) return self->done_(std::move(answer).error(), false);
                    self->take(*answer);
                  });
  }

 private:
  void take(const HubSession::Answer& answer) {
    items_.insert(items_.end(), std::make_move_iterator(page_.begin()),
                  std::make_move_iterator(page_.end()));
    list_bytes_ += answer.http.body.size();
    if (items_.size() > kMaxItems || list_bytes_ > kMaxListBytes)
      return fail("the list is too long");
    const std::optional<std::string> next = find_next_link(answer.http.head);
    if (!next || part_ == ListPart::first_page) return done_(std::move(items_), !next);
    const Result<Url> link = answer.url.resolve(*next);
    if (!link) return fail("bad link to the next page: " + link.error().message);
    if (link->same_origin(answer.url)) return ask(*link);
    // A hub behind a proxy, or mirrored, names itself as it knows itself; no other host is asked.
    Url here = answer.url;
    here.query = link->query;
    ask(here);
  }

  void fail(std::string_view why) {
    done_(Error{Errc::upstream, cat(question_.what, ": ", why)}, false);
  }

  const std::shared_ptr<HubSession> session_;
  const HubQuestion question_;
  const ListPart part_;
  const Deadline deadline_;
  const Millis patience_;  // for each page: a list may have any number of them
  const Parse parse_;
  const Taken done_;
  // Confined to the HTTP thread of each answer in turn.
  std::unordered_set<std::string> seen_;
  std::vector<Item> page_;  // the newest
  std::vector<Item> items_;
  uint64_t list_bytes_ = 0;  // of JSON
};

// Some hubs compare authors without case, and a link may name anything.
bool is_repo_of(std::string_view id, std::string_view author) {
  return id.size() > author.size() + 1 && id[author.size()] == '/' &&
         std::equal(
             author.begin(), author.end(), id.begin(),
             [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); }) &&
         is_valid_repo_id(id);
}

}  // namespace

HubUpstream::HubUpstream(HttpClient& http, HubOptions options,
                         std::shared_ptr<const Credentials> credentials, Metrics& metrics)
    : session_(
          std::make_shared<HubSession>(http, std::move(options), std::move(credentials), metrics)),
      reader_(std::make_shared<HubReader>(session_, metrics)) {}

HubUpstream::~HubUpstream() = default;

std::string hub_source(const Url& endpoint) {
  return "hf:" + endpoint.str();
}

std::string HubUpstream::source() const {
  return hub_source(session_->endpoint());
}

void HubUpstream::resolve_revision(const RepoName& repo, const std::string& revision,
                                   Deadline deadline, Done<RevisionInfo> done) {
  HubQuestion question = session_->question(repo, cat(repo.id, " at ", revision));
  auto info = std::make_shared<RevisionInfo>();
  auto check = [revision, info](const HubSession::Answer& answer) -> Status {
    *info = CAKE_TRY(parse_revision_info(answer.http.body));
    if (is_commit(revision) && info->commit != revision)
      return Error{Errc::upstream, "the hub answers for another commit"};
    return {};
  };
  auto take = [repo, info, done = std::move(done)](Result<HubSession::Answer> answer) {
    if (!answer) return done(std::move(answer).error());
    if (!is_valid_repo_id(info->canonical_id)) info->canonical_id = repo.id;
    done(std::move(*info));
  };
  session_->get(session_->url(api_path(repo, "revision", revision)), std::move(question),
                std::move(deadline), std::move(check), std::move(take));
}

void HubUpstream::list_tree(const RepoName& repo, const std::string& commit, Deadline deadline,
                            Done<std::vector<TreeEntry>> done) {
  auto paging = std::make_shared<Paging<TreeEntry>>(
      session_, session_->question(repo, cat("files of ", repo.id, " at ", commit)), ListPart::all,
      std::move(deadline), &parse_tree_page,
      [done = std::move(done)](Result<std::vector<TreeEntry>> entries, bool) {
        done(std::move(entries));
      });
  paging->ask(session_->url(api_path(repo, "tree", commit), "recursive=true"));
}

void HubUpstream::list_repos(RepoType type, const std::string& author, ListPart part,
                             Deadline deadline, Done<RepoList> done) {
  const std::string what = cat(repo_type_plural(type), " of ", author);
  auto take = [author, what, done = std::move(done)](Result<std::vector<std::string>> ids,
                                                     bool is_whole) {
    if (!ids) return done(std::move(ids).error());
    std::erase_if(*ids, [&](const std::string& id) { return !is_repo_of(id, author); });
    // The hub answers an empty list for an author that there is not.
    if (ids->empty() && is_whole)
      return done(Error{Errc::not_found, what + ": none that we may see"});
    done(RepoList{*std::move(ids), is_whole});
  };
  HubQuestion question{.what = what,
                       .repo_page = session_->url("/" + encode_segment(author)).str(),
                       .token = "",
                       .is_optional = true};
  auto paging = std::make_shared<Paging<std::string>>(
      session_, std::move(question), part, std::move(deadline), &parse_repo_page, std::move(take));
  paging->ask(session_->url(cat("/api/", repo_type_plural(type)),
                            cat("author=", encode_segment(author), "&limit=1000")));
}

void HubUpstream::read(const FileAddress& file, ByteRange range, bool is_demand, Deadline deadline,
                       std::shared_ptr<RangeSink> sink) {
  reader_->read(file, range, is_demand, std::move(deadline), std::move(sink));
}

void HubUpstream::after(Millis delay, std::function<void()> task) {
  session_->http().after(delay, std::move(task));
}

}  // namespace cake
