// pattern_mount DIR [key=value…]: the keeper and the worker with the smallest file system that
// shows what they do.  Its files, kPatternBytes each:
//   f        answered by a thread other than the one that asked
//   gated    held until the file gate=PATH exists
//   poison   a read of it ends the worker by signal=N
//   through  opened through passthrough to backing=PATH, when the kernel agreed
// and attributes of the root: user.parked (requests held), user.generation, and user.drop, which
// when asked for begins to drop the pages of `gated` from the kernel.
// Other keys: trace=FILE (gets "OFFSET LENGTH" of each read of f, in the order of arrival)
// latency_ms=N (reads are answered so much later) foreground=1 deaths=N patience_ms=N fail=CODE
// (the worker ends at its start) dies_ready=N (worker N waits until the file gate=PATH exists, says
// that it is ready, and ends before the keeper is sent its signal) program=PATH source=S.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "fs/fuse_api.h"
#include "fs/invalidate.h"
#include "fs/keeper.h"
#include "fs/worker.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"
#include "tests/programs/pattern.h"

namespace cake {
namespace {

using Settings = std::map<std::string, std::string>;

constexpr const char* kNames[] = {"f", "gated", "poison", "through"};
constexpr fuse_ino_t kFile = 2;
constexpr fuse_ino_t kGated = 3;
constexpr fuse_ino_t kPoison = 4;
constexpr fuse_ino_t kThrough = 5;

struct Read {
  fuse_req_t request;
  fuse_ino_t node;
  size_t length;
  uint64_t offset;
  SteadyTime due;
};

void fill_attributes(fuse_ino_t node, struct stat& info) {
  info = {};
  info.st_ino = node;
  info.st_nlink = 1;
  info.st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0555 : S_IFREG | 0444;
  info.st_size = node == FUSE_ROOT_ID ? 0 : static_cast<off_t>(kPatternBytes);
}

class PatternFilesystem final : public Filesystem {
 public:
  explicit PatternFilesystem(Settings settings) : settings_(std::move(settings)) {
    ops_.lookup = lookup;
    ops_.getattr = getattr;
    ops_.open = open_file;
    ops_.release = release;
    ops_.read = read_file;
    ops_.readdir = readdir;
    ops_.getxattr = getxattr;
    latency_ = Millis(atoi(settings_["latency_ms"].c_str()));
    if (const std::string& path = settings_["trace"]; !path.empty())
      trace_ = fopen(path.c_str(), "ae");
    for (auto& thread : threads_) thread = std::thread([this] { answer_reads(); });
  }
  ~PatternFilesystem() override { on_drain(); }

  const fuse_lowlevel_ops* ops() const override { return &ops_; }
  void on_init(fuse_conn_info&) override {}
  void on_drain() override {
    {
      MutexLock lock(mutex_);
      is_draining_ = true;
      wake_.notify_all();
    }
    for (auto& thread : threads_)
      if (thread.joinable()) thread.join();
    if (dropper_.joinable()) dropper_.join();
    MutexLock lock(mutex_);
    if (trace_ != nullptr) fclose(std::exchange(trace_, nullptr));
  }

 private:
  static PatternFilesystem& of(fuse_req_t request) {
    return *static_cast<PatternFilesystem*>(static_cast<Filesystem*>(fuse_req_userdata(request)));
  }
  static void lookup(fuse_req_t request, fuse_ino_t, const char* name) {
    for (fuse_ino_t i = 0; i < std::size(kNames); i++) {
      if (strcmp(name, kNames[i]) != 0) continue;
      fuse_entry_param entry{};
      entry.ino = i + 2;
      entry.attr_timeout = entry.entry_timeout = 3600;
      fill_attributes(entry.ino, entry.attr);
      fuse_reply_entry(request, &entry);
      return;
    }
    fuse_reply_err(request, ENOENT);
  }
  static void getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
    struct stat info {};
    fill_attributes(node, info);
    fuse_reply_attr(request, &info, 3600);
  }
  static void open_file(fuse_req_t request, fuse_ino_t node, fuse_file_info* file) {
    PatternFilesystem& self = of(request);
    file->keep_cache = 1;
    const std::string backing = self.settings_["backing"];
    if (node == kThrough && !backing.empty()) {
      OpenTable& opens = self.channel().opens();
      int32_t id = opens.find(node).value_or(OpenRecord{}).backing_id;
      if (id == 0) {
        const int fd = open(backing.c_str(), O_RDONLY | O_CLOEXEC);
        id = self.channel().register_backing(fd).value();
        close(fd);
      }
      const OpenRecord record = opens.add(node, OpenMode::passthrough, id);
      Channel::pass_next_open_through(record.backing_id);
    }
    fuse_reply_open(request, file);
  }
  static void release(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
    PatternFilesystem& self = of(request);
    if (const auto last = self.channel().opens().remove(node, Channel::is_request_resent()))
      self.channel().unregister_backing(last->backing_id).value();
    fuse_reply_err(request, 0);
  }
  static void readdir(fuse_req_t request, fuse_ino_t, size_t bytes, off_t at, fuse_file_info*) {
    std::string out;
    for (size_t i = static_cast<size_t>(at); i < std::size(kNames); i++) {
      char entry[256];
      struct stat info {};
      fill_attributes(i + 2, info);
      const size_t used = fuse_add_direntry(request, entry, sizeof entry, kNames[i], &info,
                                            static_cast<off_t>(i) + 1);
      if (out.size() + used > bytes) break;
      out.append(entry, used);
    }
    fuse_reply_buf(request, out.data(), out.size());
  }
  static void getxattr(fuse_req_t request, fuse_ino_t, const char* name, size_t bytes) {
    PatternFilesystem& self = of(request);
    std::string value;
    if (strcmp(name, "user.generation") == 0) {
      value = std::to_string(self.channel().state().generation.load());
    } else if (strcmp(name, "user.parked") == 0) {
      MutexLock lock(self.mutex_);
      value = std::to_string(self.gated_.size());
    } else if (strcmp(name, "user.drop") == 0) {
      MutexLock lock(self.mutex_);
      if (!self.dropper_.joinable()) self.dropper_ = std::thread([&self] { self.drop_gated(); });
    } else {
      fuse_reply_err(request, ENODATA);
      return;
    }
    if (bytes == 0)
      fuse_reply_xattr(request, value.size());
    else
      fuse_reply_buf(request, value.data(), value.size());
  }
  static void read_file(fuse_req_t request, fuse_ino_t node, size_t length, off_t offset,
                        fuse_file_info*) {
    PatternFilesystem& self = of(request);
    if (node == kPoison) raise(atoi(self.settings_["signal"].c_str()));
    if (node == kThrough && !self.settings_["backing"].empty()) {
      fuse_reply_err(request, ENOTRECOVERABLE);  // passthrough did not happen
      return;
    }
    MutexLock lock(self.mutex_);
    if (self.trace_ != nullptr && node == kFile) {
      fprintf(self.trace_, "%lld %zu\n", static_cast<long long>(offset), length);
      fflush(self.trace_);
    }
    (node == kGated ? self.gated_ : self.reads_)
        .push_back(
            {request, node, length, static_cast<uint64_t>(offset), steady_now() + self.latency_});
    self.wake_.notify_one();
  }

  void answer_reads() {
    std::vector<char> buffer;
    for (;;) {
      Read read{};
      {
        MutexLock lock(mutex_);
        while (reads_.empty()) {
          if (is_draining_) return;
          open_gate();
          if (reads_.empty()) wake_.wait_until(mutex_, steady_now() + Millis(5));
        }
        if (const SteadyTime due = reads_.front().due; due > steady_now()) {
          wake_.wait_until(mutex_, due);
          continue;
        }
        read = reads_.front();
        reads_.pop_front();
      }
      const uint64_t end = std::min(read.offset + read.length, kPatternBytes);
      buffer.resize(read.offset < end ? end - read.offset : 0);
      for (uint64_t i = 0; i < buffer.size(); i++)
        buffer[i] = static_cast<char>(pattern_at(read.offset + i));
      fuse_reply_buf(read.request, buffer.data(), buffer.size());
    }
  }
  void drop_gated() {
    const Status dropped = invalidate_node(channel(), kGated, [this] {
      MutexLock lock(mutex_);
      return is_draining_;
    });
    if (!dropped) fprintf(stderr, "pattern_mount: %s\n", dropped.error().message.c_str());
  }
  void open_gate() REQUIRES(mutex_) {
    if (gated_.empty() || access(settings_["gate"].c_str(), F_OK) != 0) return;
    reads_.swap(gated_);
    wake_.notify_all();
  }

  Settings settings_;
  fuse_lowlevel_ops ops_{};
  Mutex mutex_;
  CondVar wake_;
  std::deque<Read> reads_ GUARDED_BY(mutex_);
  std::deque<Read> gated_ GUARDED_BY(mutex_);
  bool is_draining_ GUARDED_BY(mutex_) = false;
  Millis latency_{};
  FILE* trace_ GUARDED_BY(mutex_) = nullptr;
  std::thread threads_[2];
  std::thread dropper_;
};

Settings parse(const std::vector<std::string>& words) {
  Settings settings;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos) settings[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return settings;
}

int work(const std::vector<std::string>& words) {
  Settings settings = parse(words);
  if (const int code = atoi(settings["fail"].c_str()); code != 0) {
    fprintf(stderr, "pattern_mount: told to fail\n");
    return code;
  }
  auto channel = Channel::adopt();
  if (!channel) {
    fprintf(stderr, "pattern_mount: %s\n", channel.error().message.c_str());
    return kMountSystem;
  }
  KeeperState& state = (*channel)->state();
  if (settings.count("dies_ready") && settings["dies_ready"] == cat(state.generation.load())) {
    while (access(settings["gate"].c_str(), F_OK) != 0) usleep(1000);
    state.ready_generation.store(state.generation.load());
    return kMountSystem;
  }
  PatternFilesystem filesystem(std::move(settings));
  return run_worker(filesystem, **channel, WorkerOptions{});
}

int mount(const std::string& directory, const std::vector<std::string>& words) {
  Settings settings = parse(words);
  KeeperOptions options;
  options.mount.source = settings.count("source") ? settings["source"] : "hf:test/pattern";
  options.mount.mount_point = directory;
  options.mount.allow_other = geteuid() == 0;
  options.worker = work;
  options.arguments = words;
  options.program = settings["program"];
  options.is_foreground = settings["foreground"] == "1";
  if (settings.count("deaths"))
    options.max_deaths = static_cast<unsigned>(atoi(settings["deaths"].c_str()));
  if (settings.contains("patience_ms"))
    options.kill_patience = Millis(atoi(settings["patience_ms"].c_str()));
  return run_keeper(options);
}

int run(const std::vector<std::string>& words) {
  if (words.empty()) return kMountUsage;
  if (words[0] == "--version") return 0;
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  if (words[0] == kKeeperCommand) return resume_keeper(work, rest);
  if (words[0] == kInvalidateCommand) return run_invalidate(rest);
  return mount(words[0], rest);
}

}  // namespace
}  // namespace cake

int main(int argc, char** argv) {
  return cake::run(std::vector<std::string>(argv + 1, argv + argc));
}
