#include "fs/model_fs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "fs/errno_map.h"
#include "fs/xattr.h"
#include "store/base/log.h"

namespace cake {

namespace {

// Longer than any mount lives; more would overflow libfuse's conversion on 32-bit kernels.
constexpr double kForeverSeconds = 1e9;
constexpr size_t kMaxName = 255;
// 64 KiB on some AArch64 machines.
const auto kPageBytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
// What libfuse's own high-level layer gives for "look it up to know".
constexpr ino_t kUnknownInode = 0xffffffff;
constexpr unsigned kBlockBytes = 1 << 20;
constexpr size_t kMaxReplyParts = 512;

ModelFs& self(fuse_req_t request) {
  return *static_cast<ModelFs*>(static_cast<Filesystem*>(fuse_req_userdata(request)));
}

// Gathers a read over many tiny tensors: writev takes 1,024 parts at most.
void reply_copied(fuse_req_t request, const FileReader::Slices& slices) {
  std::vector<char> bytes;
  for (const ChunkSlice& slice : slices) {
    const auto* from = reinterpret_cast<const char*>(slice.bytes().data());
    bytes.insert(bytes.end(), from, from + slice.length);
  }
  fuse_reply_buf(request, bytes.data(), bytes.size());
}

// A file that a view makes, and no content.
bool is_made(uint64_t node) {
  return node_kind(node) == NodeKind::text || node_kind(node) == NodeKind::live;
}

pid_t caller(fuse_req_t request) {
  return fuse_req_ctx(request)->pid;
}

}  // namespace

// libfuse's C callbacks, one line each.
struct ModelFsOps {
  static void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    self(request).look_up(request, parent, name);
  }
  static void getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
    self(request).get_attributes(request, node);
  }
  static void readlink(fuse_req_t request, fuse_ino_t node) {
    self(request).read_link(request, node);
  }
  static void open(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
    self(request).open(request, node, info);
  }
  static void release(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
    self(request).release(request, node);
  }
  static void read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                   fuse_file_info* info) {
    self(request).read(request, node, size, static_cast<uint64_t>(offset),
                       (info->flags & O_DIRECT) != 0);
  }
  static void opendir(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
    self(request).open_directory(request, node, *info);
  }
  static void readdir(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                      fuse_file_info*) {
    self(request).read_directory(request, node, size, static_cast<uint64_t>(offset), false);
  }
  static void readdirplus(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                          fuse_file_info*) {
    self(request).read_directory(request, node, size, static_cast<uint64_t>(offset), true);
  }
  static void getxattr(fuse_req_t request, fuse_ino_t node, const char* name, size_t size) {
    self(request).get_xattr(request, node, name, size);
  }
  static void listxattr(fuse_req_t request, fuse_ino_t node, size_t size) {
    self(request).list_xattrs(request, node, size);
  }
  static void statfs(fuse_req_t request, fuse_ino_t) { self(request).stat_fs(request); }
  static void forget(fuse_req_t request, fuse_ino_t, uint64_t) { fuse_reply_none(request); }
  static void forget_multi(fuse_req_t request, size_t, fuse_forget_data*) {
    fuse_reply_none(request);
  }
};

ModelFs::ModelFs(Client& client, View& view, ModelFsOptions options)
    : client_(client), view_(view), options_(options), passthrough_(options.materializer) {}

const fuse_lowlevel_ops* ModelFs::ops() const {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops made{};
    made.lookup = ModelFsOps::lookup;
    made.forget = ModelFsOps::forget;
    made.forget_multi = ModelFsOps::forget_multi;
    made.getattr = ModelFsOps::getattr;
    made.readlink = ModelFsOps::readlink;
    made.open = ModelFsOps::open;
    made.release = ModelFsOps::release;
    made.read = ModelFsOps::read;
    made.opendir = ModelFsOps::opendir;
    made.readdir = ModelFsOps::readdir;
    made.readdirplus = ModelFsOps::readdirplus;
    made.getxattr = ModelFsOps::getxattr;
    made.listxattr = ModelFsOps::listxattr;
    made.statfs = ModelFsOps::statfs;
    return made;
  }();
  return &table;
}

void ModelFs::on_init(fuse_conn_info& connection) {
  connection.want |=
      connection.capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                            FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO);
  // Not FUSE_CAP_EXPORT_SUPPORT: it promises that "." and ".." are found from any number, and that
  // listings tell each name's number, which those above repos do not know before a look-up.
  // Contents never change: nothing to invalidate, and no attribute change may drop cached pages.
  connection.want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA);
  // What was opened when another worker served.
  for (const uint64_t node : channel().opens().nodes()) update_lease(node);
}

void ModelFs::on_drain() {
  lot_.drain(Deadline::after(Millis(1500)));
  lot_.close();
}

void ModelFs::on_end() {
  lot_.close();
}

ParkedPtr ModelFs::park(fuse_req_t request) {
  return lot_.park(request, caller(request));
}

double ModelFs::ttl(bool is_moving) const {
  if (is_moving) return options_.moving_ttl_s;
  return options_.attr_ttl_s < 0 ? kForeverSeconds : options_.attr_ttl_s;
}

double ModelFs::attribute_ttl(const NodeFacts& facts) const {
  return node_kind(facts.node) == NodeKind::live ? 0 : ttl(facts.is_moving);
}

struct stat ModelFs::attributes(const NodeFacts& facts) const {
  struct stat out {};
  out.st_ino = facts.node;
  out.st_uid = options_.uid;
  out.st_gid = options_.gid;
  out.st_mtim.tv_sec = out.st_ctim.tv_sec = out.st_atim.tv_sec = facts.mtime;
  out.st_blksize = kBlockBytes;
  if (facts.is_directory) {
    out.st_mode = S_IFDIR | options_.directory_mode;
    out.st_nlink = 2;
    return out;
  }
  if (facts.is_link) {
    out.st_mode = S_IFLNK | 0777;
    out.st_nlink = 1;
    out.st_size = static_cast<off_t>(facts.bytes);
    return out;
  }
  out.st_mode = S_IFREG | options_.file_mode;
  out.st_nlink = 1;
  out.st_size = static_cast<off_t>(facts.bytes);
  // Nothing that is merely not cached may look like a hole: cp and tar would write zeros.
  out.st_blocks = static_cast<blkcnt_t>((facts.bytes + 511) / 512);
  return out;
}

// --- names ---

void ModelFs::look_up(fuse_req_t request, uint64_t parent, const char* name) {
  if (std::strlen(name) > kMaxName) {
    fuse_reply_err(request, ENAMETOOLONG);
    return;
  }
  const ParkedPtr parked = park(request);
  view_.look_up(
      parent, name, metadata_deadline(), [this, parked, parent](const Result<NodeFacts>& facts) {
        const ClaimedRequest mine = parked->claim();
        if (mine == nullptr) return;
        fuse_entry_param entry{};
        if (facts) {
          entry.ino = facts->node;
          entry.attr = attributes(*facts);
          entry.entry_timeout = ttl(facts->is_moving);
          entry.attr_timeout = attribute_ttl(*facts);
          fuse_reply_entry(mine, &entry);
        } else if (facts.error().code == Errc::not_found) {
          // Node 0: "not there", and the kernel remembers it.
          entry.entry_timeout = view_.is_moving(parent) ? options_.negative_ttl_s : ttl(false);
          fuse_reply_entry(mine, &entry);
        } else {
          fuse_reply_err(mine, errno_for_names(facts.error().code));
        }
      });
}

void ModelFs::get_attributes(fuse_req_t request, uint64_t node) {
  const ParkedPtr parked = park(request);
  view_.find_facts(node, metadata_deadline(), [this, parked](const Result<NodeFacts>& facts) {
    const ClaimedRequest mine = parked->claim();
    if (mine == nullptr) return;
    if (!facts) {
      fuse_reply_err(mine, errno_for_names(facts.error().code));
      return;
    }
    const struct stat found = attributes(*facts);
    fuse_reply_attr(mine, &found, attribute_ttl(*facts));
  });
}

size_t ModelFs::append_entry(fuse_req_t request, char* buffer, size_t room, const ListedName& name,
                             bool is_plus, bool is_moving) const {
  const NodeFacts facts{name.node,  name.is_directory, name.bytes,
                        name.mtime, is_moving,         name.is_link};
  const auto cookie = static_cast<off_t>(name.cookie);
  if (is_plus) {
    fuse_entry_param entry{};
    entry.attr = attributes(facts);
    if (name.node == 0) {
      // No look-up was done (it would need the network): only the name counts.
      entry.attr.st_ino = kUnknownInode;
    } else {
      entry.ino = name.node;
      entry.attr_timeout = entry.entry_timeout = ttl(is_moving);
    }
    return fuse_add_direntry_plus(request, buffer, room, name.name.c_str(), &entry, cookie);
  }
  struct stat entry = attributes(facts);
  if (name.node == 0) entry.st_ino = kUnknownInode;
  return fuse_add_direntry(request, buffer, room, name.name.c_str(), &entry, cookie);
}

// The kernel looks a path up again when opening its last part is ESTALE, but not when reading is.
void ModelFs::open_directory(fuse_req_t request, uint64_t node, fuse_file_info info) {
  const ParkedPtr parked = park(request);
  info.fh = 0;
  view_.find_facts(node, metadata_deadline(), [parked, info](const Result<NodeFacts>& facts) {
    const ClaimedRequest mine = parked->claim();
    if (mine == nullptr) return;
    if (facts)
      fuse_reply_open(mine, &info);
    else
      fuse_reply_err(mine, errno_for_listings(facts.error().code));
  });
}

void ModelFs::read_directory(fuse_req_t request, uint64_t node, size_t size, uint64_t offset,
                             bool is_plus) {
  const ParkedPtr parked = park(request);
  view_.list(node, metadata_deadline(), [=, this](const Result<ListingPtr>& listing) {
    const ClaimedRequest mine = parked->claim();
    if (mine == nullptr) return;
    if (!listing) {
      fuse_reply_err(mine, errno_for_listings(listing.error().code));
      return;
    }
    std::vector<char> buffer(size);
    size_t used = 0;
    const auto add = [&](const ListedName& name, bool with_facts) {
      const size_t needed = append_entry(mine, buffer.data() + used, size - used, name, is_plus,
                                         with_facts && (*listing)->is_moving);
      if (needed > size - used) return false;
      used += needed;
      return true;
    };
    bool has_room = true;
    if (offset < 1) has_room = add({".", 1, true, 0, 0, 0, false}, false);
    if (has_room && offset < 2) has_room = add({"..", 2, true, 0, 0, 0, false}, false);
    const std::vector<ListedName>& names = (*listing)->names;
    auto next = std::upper_bound(
        names.begin(), names.end(), offset,
        [](uint64_t cookie, const ListedName& name) { return cookie < name.cookie; });
    for (; has_room && next != names.end(); ++next) has_room = add(*next, true);
    fuse_reply_buf(mine, buffer.data(), used);
  });
}

// --- contents ---

void ModelFs::open(fuse_req_t request, uint64_t node, fuse_file_info* info) {
  if (node_kind(node) != NodeKind::file && !is_made(node)) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  if ((info->flags & O_ACCMODE) != O_RDONLY) {
    fuse_reply_err(request, EROFS);
    return;
  }
  if (is_made(node)) {
    open_made(request, node, info);
    return;
  }
  // Opening costs no request: the size is known, and what cannot be read says so when it is read.
  const Result<std::shared_ptr<FileReader>> reader = client_.open(node_payload(node));
  if (!reader) {
    fuse_reply_err(request, errno_for(reader.error().code));
    return;
  }
  view_.note_open((*reader)->content());
  const OpenRecord record = passthrough_.open(channel(), node, (*reader)->content());
  update_lease(node);
  info->fh = 0;
  info->keep_cache = 1;
  info->noflush = 1;
  if (record.mode == OpenMode::passthrough) Channel::pass_next_open_through(record.backing_id);
  if (fuse_reply_open(request, info) == 0) return;
  passthrough_.release(channel(), node, false);
  update_lease(node);
}

void ModelFs::release(fuse_req_t request, uint64_t node) {
  if (is_made(node)) {
    fuse_reply_err(request, 0);
    return;
  }
  passthrough_.release(channel(), node, Channel::is_request_resent());
  update_lease(node);
  fuse_reply_err(request, 0);
}

void ModelFs::update_lease(uint64_t node) {
  Store& store = client_.store();
  MutexLock lock(lease_mutex_);
  const bool is_open = channel().opens().find(node).has_value();
  if (is_open) store.accesses().note_content(node_payload(node));
  if (is_open == leased_.contains(node)) return;
  const Status done =
      is_open ? store.lease().add(node_payload(node)) : store.lease().remove(node_payload(node));
  // Then what is open may be evicted and fetched again.
  if (!done) log_warn(done.error().with("the lease of an open file").message);
  if (is_open && done)
    leased_.insert(node);
  else
    leased_.erase(node);
}

void ModelFs::read(fuse_req_t request, uint64_t node, size_t size, uint64_t offset,
                   bool is_direct) {
  if (is_made(node)) {
    read_made(request, node, size, offset);
    return;
  }
  const Result<std::shared_ptr<FileReader>> reader = client_.open(node_payload(node));
  if (!reader) {
    fuse_reply_err(request, errno_for(reader.error().code));
    return;
  }
  if (options_.hot_files != nullptr) options_.hot_files->on_read((*reader)->content(), size);
  const ParkedPtr parked = park(request);
  ReadOptions options;
  // The kernel asks again for the one page it needs when a larger request of its cache fails.
  options.may_ask_for_less = !is_direct && size > kPageBytes;
  const bool is_waiting =
      (*reader)->read(offset, size, options, [parked](Result<FileReader::Slices> slices) {
        const ClaimedRequest mine = parked->claim();
        if (mine == nullptr) return;
        if (!slices) {
          fuse_reply_err(mine, errno_for(slices.error().code));
          return;
        }
        // Straight from the chunks' own memory, which is private and resident: a worker that dies
        // while the kernel copies from it loses nothing but the request, which is sent again.
        if (slices->size() > kMaxReplyParts) {
          reply_copied(mine, *slices);
          return;
        }
        std::vector<iovec> parts;
        parts.reserve(slices->size());
        for (const ChunkSlice& slice : *slices)
          parts.push_back({const_cast<std::byte*>(slice.bytes().data()), slice.length});
        fuse_reply_iov(mine, parts.data(), static_cast<int>(parts.size()));
      });
  if (is_waiting && options.may_ask_for_less)
    parked->may_fail(EIO, [this] { return client_.health().is_down(); });
}

// --- links and made files ---

void ModelFs::read_link(fuse_req_t request, uint64_t node) {
  const Result<std::string> target = view_.read_link(node);
  if (target)
    fuse_reply_readlink(request, target->c_str());
  else
    fuse_reply_err(request, errno_for_names(target.error().code));
}

void ModelFs::open_made(fuse_req_t request, uint64_t node, fuse_file_info* info) {
  info->fh = 0;
  info->noflush = 1;
  // What changes must not come from the page cache; its size is what the reader is given.
  info->direct_io = node_kind(node) == NodeKind::live;
  info->keep_cache = !info->direct_io;
  fuse_reply_open(request, info);
}

void ModelFs::read_made(fuse_req_t request, uint64_t node, size_t size, uint64_t offset) {
  const ParkedPtr parked = park(request);
  view_.read_text(node, offset == 0, [parked, size, offset](const Result<TextPtr>& text) {
    const ClaimedRequest mine = parked->claim();
    if (mine == nullptr) return;
    if (!text) {
      fuse_reply_err(mine, errno_for(text.error().code));
      return;
    }
    const std::string& bytes = **text;
    const size_t first = std::min<uint64_t>(offset, bytes.size());
    fuse_reply_buf(mine, bytes.data() + first, std::min(size, bytes.size() - first));
  });
}

// --- attributes ---

void ModelFs::get_xattr(fuse_req_t request, uint64_t node, const char* name, size_t size) {
  // Asked by every ls and every exec: answered without the index.  There are no access lists,
  // labels or capabilities here at all; ls, told so, asks once and not for every file.
  if (std::strncmp(name, "user.cake.", 10) != 0) {
    fuse_reply_err(request, std::strncmp(name, "user.", 5) == 0 ? ENODATA : EOPNOTSUPP);
    return;
  }
  const Result<Xattrs> attributes = xattrs_of(client_, view_, node);
  if (!attributes) {
    fuse_reply_err(request, errno_for_names(attributes.error().code));
    return;
  }
  for (const auto& [key, value] : *attributes) {
    if (key != name) continue;
    if (size == 0)
      fuse_reply_xattr(request, value.size());
    else if (size < value.size())
      fuse_reply_err(request, ERANGE);
    else
      fuse_reply_buf(request, value.data(), value.size());
    return;
  }
  fuse_reply_err(request, ENODATA);
}

void ModelFs::list_xattrs(fuse_req_t request, uint64_t node, size_t size) {
  const Result<Xattrs> attributes = xattrs_of(client_, view_, node);
  if (!attributes) {
    fuse_reply_err(request, errno_for_names(attributes.error().code));
    return;
  }
  std::string names;
  for (const auto& [key, value] : *attributes) names.append(key).push_back('\0');
  if (size == 0)
    fuse_reply_xattr(request, names.size());
  else if (size < names.size())
    fuse_reply_err(request, ERANGE);
  else
    fuse_reply_buf(request, names.data(), names.size());
}

void ModelFs::stat_fs(fuse_req_t request) {
  const Result<DiskSpace> space = disk_space(client_.store().directory());
  if (!space) {
    fuse_reply_err(request, errno_for(space.error().code));
    return;
  }
  struct statvfs facts {};
  facts.f_bsize = facts.f_frsize = 4096;
  facts.f_blocks = space->total_bytes / 4096;
  facts.f_bfree = facts.f_bavail = space->free_bytes / 4096;
  facts.f_namemax = kMaxName;
  fuse_reply_statfs(request, &facts);
}

}  // namespace cake
