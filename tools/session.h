// A store and a hub, opened for one command.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fetch/client.h"
#include "fetch/http.h"
#include "fetch/reference.h"
#include "fs/shown_files.h"
#include "store/base/metrics.h"
#include "store/store.h"
#include "tools/command.h"

namespace cake {

// Thread-compatible; the parts synchronise themselves.
class Session {
 public:
  // Opens the store, and what is needed to ask the hub; makes no request.  A command says failures
  // itself, and is soft unless the settings say hard; for a mount they are logged.  Who only looks
  // moves no branch under the mounts of the store, whatever the hub says; `record` does that.
  enum class For { command, look, mount };
  static Result<std::unique_ptr<Session>> open(const Config& config, For use = For::command);
  ~Session();  // stops
  // Ends what is under way and writes out what came: after this no answer of the network calls
  // anybody.  May be called again.
  void stop();

  Store& store() { return *store_; }
  Client& client() { return *client_; }
  Metrics& metrics() { return *metrics_; }

  // The commit that a reference means, else at the revision `rev`.  `ask_hub`: also when the store
  // knows an answer.
  Result<std::shared_ptr<const Snapshot>> find_snapshot(const Reference& reference, bool ask_hub);
  // The reference leads to this commit from now on; nothing changes when it did before.
  Status record(const Reference& reference, const Snapshot& snapshot);

 private:
  Session() = default;

  const std::string& revision_of(const Reference& reference) const {
    return reference.revision.empty() ? default_revision_ : reference.revision;
  }

  std::string default_revision_;
  // In the order they depend on each other.
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<Client> client_;
};

// The store alone, for commands that never ask a hub.
Result<std::unique_ptr<Store>> open_store(const Config& config, Metrics& metrics);

// What the settings mean to each part.
ShownChoice shown_choice(const Config& config);
StoreOptions store_options(const Config& config);
HttpOptions http_options(const Config& config);
ClientOptions client_options(const Config& config);

// Indices of the entries below `path` ("" is all, a file is itself).  not_found when there are
// none.
Result<std::vector<uint32_t>> entries_below(const Snapshot& snapshot, const std::string& path);

// A file by a name that people know, and the row of its content.
struct StoredFile {
  std::string name;  // as a reference
  RowId content = 0;
};
// The files that the references lead to, each content once; without references every one that the
// store knows.
Result<std::vector<StoredFile>> list_stored_files(Session& session,
                                                  std::span<const std::string> references);

}  // namespace cake
