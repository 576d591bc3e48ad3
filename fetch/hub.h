// A Hugging Face compatible hub as an Upstream.
#pragma once

#include <memory>
#include <string>

#include "fetch/credentials.h"
#include "fetch/http.h"
#include "fetch/hub_session.h"
#include "fetch/upstream.h"

namespace cake {

class HubReader;

// "hf:ENDPOINT": what names and contents of a hub are keyed by in the store, also offline.
std::string hub_source(const Url& endpoint);

// Calls under way when this is destroyed go on to their end; ~HttpClient ends them.  Thread-safe.
class HubUpstream final : public Upstream {
 public:
  // `http` and `metrics` outlive this and its calls.
  HubUpstream(HttpClient& http, HubOptions options, std::shared_ptr<const Credentials> credentials,
              Metrics& metrics);
  ~HubUpstream() override;

  std::string source() const override;
  void resolve_revision(const RepoName& repo, const std::string& revision, Deadline deadline,
                        Done<RevisionInfo> done) override;
  void list_tree(const RepoName& repo, const std::string& commit, Deadline deadline,
                 Done<std::vector<TreeEntry>> done) override;
  void list_repos(RepoType type, const std::string& author, ListPart part, Deadline deadline,
                  Done<RepoList> done) override;
  void read(const FileAddress& file, ByteRange range, bool is_demand, Deadline deadline,
            std::shared_ptr<RangeSink> sink) override;
  void after(Millis delay, std::function<void()> task) override;

 private:
  // Constant after construction.
  const std::shared_ptr<HubSession> session_;
  const std::shared_ptr<HubReader> reader_;
};

}  // namespace cake
