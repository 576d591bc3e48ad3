// The file system that a worker serves: FUSE operations over a view and the contents it leads to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>

#include "fetch/client.h"
#include "fs/fuse_api.h"
#include "fs/hot_files.h"
#include "fs/parking.h"
#include "fs/passthrough.h"
#include "fs/view.h"
#include "fs/worker.h"
#include "store/base/mutex.h"

namespace cake {

struct ModelFsOptions {
  unsigned uid = 0, gid = 0;
  unsigned file_mode = 0444;
  unsigned directory_mode = 0555;
  // Seconds; names that may lead elsewhere later, and names that are absent above a commit.
  double moving_ttl_s = 60;
  double negative_ttl_s = 60;
  // Seconds that attributes of what never changes are valid; negative: for ever.
  double attr_ttl_s = -1;
  // Metadata never waits longer, hard mount or not.
  Millis timeo{60'000};
  // Where materialized files are; null: every file is read through us.  Outlives the file system.
  Materializer* materializer = nullptr;
  // Told of every read, when `hot=auto`.  Outlives the file system.
  HotFiles* hot_files = nullptr;
};

// Thread-safe: operations run on libfuse's threads, answers come from those of the client.
//
// Keeps nothing that the index could not tell again: a fresh worker continues where a killed one
// stopped, so `fh` is always 0 and forgets are hints.
class ModelFs final : public Filesystem {
 public:
  // Client and view outlive this.
  ModelFs(Client& client, View& view, ModelFsOptions options);

  const fuse_lowlevel_ops* ops() const override;
  void on_init(fuse_conn_info& connection) override;
  void on_drain() override;
  void on_end() override;

 private:
  friend struct ModelFsOps;

  void look_up(fuse_req_t request, uint64_t parent, const char* name);
  void get_attributes(fuse_req_t request, uint64_t node);
  void open(fuse_req_t request, uint64_t node, fuse_file_info* info);
  void release(fuse_req_t request, uint64_t node);
  void read(fuse_req_t request, uint64_t node, size_t size, uint64_t offset, bool is_direct);
  void read_link(fuse_req_t request, uint64_t node);
  void open_made(fuse_req_t request, uint64_t node, fuse_file_info* info);
  void read_made(fuse_req_t request, uint64_t node, size_t size, uint64_t offset);
  void open_directory(fuse_req_t request, uint64_t node, fuse_file_info info);
  void read_directory(fuse_req_t request, uint64_t node, size_t size, uint64_t offset,
                      bool is_plus);
  void get_xattr(fuse_req_t request, uint64_t node, const char* name, size_t size);
  void list_xattrs(fuse_req_t request, uint64_t node, size_t size);
  void stat_fs(fuse_req_t request);

  // Brings the store's lease of a file in line with whether it is open: who evicts looks at it.
  void update_lease(uint64_t node) EXCLUDES(lease_mutex_);
  ParkedPtr park(fuse_req_t request);
  Deadline metadata_deadline() const { return Deadline::after(options_.timeo); }
  struct stat attributes(const NodeFacts& facts) const;
  double ttl(bool is_moving) const;
  double attribute_ttl(const NodeFacts& facts) const;
  size_t append_entry(fuse_req_t request, char* buffer, size_t room, const ListedName& name,
                      bool is_plus, bool is_moving) const;

  // Constant after construction.
  Client& client_;
  View& view_;
  const ModelFsOptions options_;

  // These synchronise themselves.
  ParkingLot lot_;
  Passthrough passthrough_;

  // Guarded by lease_mutex_.  Held over the lease's 8-byte write; the locks of the open table and
  // of the lease are taken inside it.
  Mutex lease_mutex_;
  std::unordered_set<uint64_t> leased_ GUARDED_BY(lease_mutex_);  // node ids
};

}  // namespace cake
