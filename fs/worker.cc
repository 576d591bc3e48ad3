#include "fs/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "fs/fuse_api.h"
#include "store/base/clock.h"
#include "store/base/file.h"
#include "store/base/log.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {

// One run of a session.  Confined to the main thread, but for serve().
class Worker {
 public:
  Worker(Filesystem& filesystem, Channel& channel, const WorkerOptions& options)
      : filesystem_(filesystem), channel_(channel), options_(options) {}
  ~Worker();

  int run();

 private:
  static void init_hook(void* userdata, fuse_conn_info* connection);
  static ssize_t read_hook(int fd, void* buffer, size_t bytes, void* userdata);
  static ssize_t writev_hook(int fd, iovec* parts, int count, void* userdata);

  Status prepare();
  Status agree();
  void give_up_stdio();
  void serve() EXCLUDES(mutex_);
  bool wait_for_end();
  void stop_threads() EXCLUDES(mutex_);

  // Constant after prepare().
  Filesystem& filesystem_;
  Channel& channel_;
  const WorkerOptions options_;
  fuse_lowlevel_ops ops_{};
  fuse_session* session_ = nullptr;
  File signals_;  // signalfd of SIGTERM
  File ended_;    // eventfd: a thread left its loop

  std::vector<std::thread> threads_;
  std::atomic<bool> is_stopping_{false};
  std::atomic<bool> has_failed_{false};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar left_;
  unsigned running_ GUARDED_BY(mutex_) = 0;
};

namespace {

// libfuse's one userdata is the Filesystem's; the thread that waits for INIT leaves its options
// here.
thread_local const WorkerOptions* t_init_options = nullptr;

void interrupt_read(int) {}

}  // namespace

void Worker::init_hook(void* userdata, fuse_conn_info* connection) {
  static_cast<Filesystem*>(userdata)->on_init(*connection);
  const WorkerOptions& options = *t_init_options;
  connection->max_read = options.max_read_bytes;
  connection->max_background = options.max_background;
  connection->congestion_threshold = options.max_background;
  // A spliced request or reply is one that a dying worker loses.
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

ssize_t Worker::read_hook(int, void* buffer, size_t bytes, void* userdata) {
  return static_cast<Filesystem*>(userdata)->channel().receive(buffer, bytes);
}

ssize_t Worker::writev_hook(int, iovec* parts, int count, void* userdata) {
  return static_cast<Filesystem*>(userdata)->channel().send(parts, count);
}

Worker::~Worker() {
  CAKE_CHECK(threads_.empty());
  // Threads of the network may hold requests; an answer needs the session.
  filesystem_.on_end();
  if (session_ != nullptr) fuse_session_destroy(session_);
  filesystem_.session_ = nullptr;
}

Status Worker::prepare() {
  sigset_t terminate;
  sigemptyset(&terminate);
  sigaddset(&terminate, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &terminate, nullptr);
  struct sigaction wake {};
  wake.sa_handler = interrupt_read;  // without SA_RESTART: read(2) returns
  sigaction(SIGUSR2, &wake, nullptr);
  signals_ = File(signalfd(-1, &terminate, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd");
  ended_ = File(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  if (!signals_.is_open() || !ended_.is_open()) return errno_error(errno, "preparing the worker");

  ops_ = *filesystem_.ops();
  ops_.init = init_hook;
  const std::string max_read = cat("max_read=", options_.max_read_bytes);
  std::string words[] = {"cakefs", "-o", max_read};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, arguments);
  session_ = fuse_session_new(&args, &ops_, sizeof ops_, &filesystem_);
  if (session_ == nullptr) return Error{Errc::invalid, "libfuse refused the session"};
  filesystem_.channel_ = &channel_;
  filesystem_.session_ = session_;
  fuse_custom_io io{};
  io.read = read_hook;
  io.writev = writev_hook;
  // libfuse closes the descriptor that it is given; the channel's stays open for passthrough.
  const int fd = fcntl(channel_.fd(), F_DUPFD_CLOEXEC, 3);
  if (fd < 0) return errno_error(errno, "the kernel connection");
  if (const int failed = fuse_session_custom_io(session_, &io, fd); failed != 0)
    return errno_error(-failed, "giving libfuse the kernel connection");
  return {};
}

// INIT alone, before there are threads: libfuse answers any other request that arrives before it
// with an error, and a resumed worker's kernel sends them at any time.
Status Worker::agree() {
  t_init_options = &options_;
  fuse_buf buffer{};
  while (!channel_.is_agreed() && !fuse_session_exited(session_)) {
    const int got = fuse_session_receive_buf(session_, &buffer);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got < 0) {
      free(buffer.mem);
      return errno_error(-got, "reading INIT");
    }
    if (got > 0) fuse_session_process_buf(session_, &buffer);
  }
  free(buffer.mem);
  if (!channel_.is_agreed() || !channel_.is_resumed() || !channel_.has_resend()) return {};
  return channel_.ask_resend();
}

// `x=$(cake mount …)` waits until nobody holds its pipe any more.
void Worker::give_up_stdio() {
  if (channel_.state().is_background == 0 || channel_.is_resumed()) return;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int fd : {0, 1, 2}) dup2(null, fd);
  if (null > 2) close(null);
}

void Worker::serve() {
  name_this_thread("cake-fuse");
  fuse_buf buffer{};
  while (!is_stopping_.load() && !fuse_session_exited(session_)) {
    const int got = fuse_session_receive_buf(session_, &buffer);
    if (got > 0) {
      fuse_session_process_buf(session_, &buffer);
    } else if (got < 0 && got != -EINTR && got != -EAGAIN) {
      log_error(errno_error(-got, "reading from the kernel").message);
      has_failed_.store(true);
      break;
    }
  }
  free(buffer.mem);
  MutexLock lock(mutex_);
  running_--;
  left_.notify_all();
  const uint64_t one = 1;
  if (write(ended_.fd(), &one, sizeof one) < 0 && errno != EAGAIN) has_failed_.store(true);
}

// False: SIGTERM; true: the connection ended or failed.
bool Worker::wait_for_end() {
  pollfd sources[] = {{signals_.fd(), POLLIN, 0}, {ended_.fd(), POLLIN, 0}};
  for (;;) {
    if (poll(sources, 2, -1) < 0) continue;  // EINTR
    if (sources[1].revents != 0) return true;
    if (sources[0].revents != 0) return false;
  }
}

// A signal frees a thread from read(2).  One that comes just before the read is lost, so it is
// repeated until the thread has left; read returns either a request or EINTR, never loses one.
void Worker::stop_threads() {
  is_stopping_.store(true);
  {
    MutexLock lock(mutex_);
    while (running_ > 0) {
      for (std::thread& thread : threads_) pthread_kill(thread.native_handle(), SIGUSR2);
      left_.wait_until(mutex_, steady_now() + Millis(2));
    }
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

int Worker::run() {
  Status status = prepare();
  if (status) status = agree();
  if (!status) {
    log_error(status.error().message);
    return 2;
  }
  if (channel_.is_agreed() && !fuse_session_exited(session_)) {
    {
      MutexLock lock(mutex_);
      running_ = std::max(1u, options_.threads);
    }
    // Requests wait in the kernel; ready is what a worker is that may be handed them.
    give_up_stdio();
    channel_.announce_ready();
    for (unsigned i = 0; i < std::max(1u, options_.threads); i++)
      threads_.emplace_back([this] { serve(); });
    const bool has_ended = wait_for_end();
    stop_threads();
    if (has_failed_.load()) return 2;
    if (!has_ended && !fuse_session_exited(session_)) {
      filesystem_.on_drain();
      channel_.announce_ending(WorkerEnding::drained);
      return 0;
    }
  }
  channel_.announce_ending(WorkerEnding::unmounted);
  return 0;
}

int run_worker(Filesystem& filesystem, Channel& channel, const WorkerOptions& options) {
  name_this_thread("cake-worker");
  return Worker(filesystem, channel, options).run();
}

}  // namespace cake
