// A store and the hub behind it, as a hub: what `cake serve hf:` serves.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "fetch/client.h"
#include "fetch/hub_content.h"

namespace cake {

struct HubMirrorOptions {
  Millis timeo{60'000};  // names wait no longer for the hub behind
  // Asks every waiting body again (HttpServer::wake).  Called from any thread.
  std::function<void()> wake;
};

// Serves what the store holds and pulls through what it does not: a byte comes once from the hub,
// however many clients ask for it.  Thread-safe.
// Calls of the client under way keep it alive: make it by std::make_shared.
class HubMirror final : public HubContent, public std::enable_shared_from_this<HubMirror> {
 public:
  HubMirror(Client& client, HubMirrorOptions options);  // client outlives this and what it opened

  // What the store knows; the hub's own list would be all models there are.
  Result<std::vector<HubRepo>> list_repos(RepoType type) override;
  void list_author(RepoType type, const std::string& author,
                   Done<std::vector<HubRepo>> done) override;
  bool has_repo(const RepoName& repo) override;
  bool may_have_repo(const RepoName& repo) override;
  void get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) override;
  void get_revision(const RepoName& repo, const std::string& revision,
                    Done<HubRevisionPtr> done) override;

 private:
  HubRevisionPtr revision_of(const std::shared_ptr<const Snapshot>& snapshot);

  // Constant after construction.
  Client& client_;
  const HubMirrorOptions options_;

  // Guarded by mutex_.  Leaf lock.  Lists of files are long to make; newest first.
  Mutex mutex_;
  std::list<std::pair<RepoName, HubRevisionPtr>> revisions_ GUARDED_BY(mutex_);
};

}  // namespace cake
