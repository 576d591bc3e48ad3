#include "fs/channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "fs/fuse_uapi.h"

namespace cake {
namespace {

using uapi::InHeader;
using uapi::InitIn;
using uapi::InitOut;
using uapi::OutHeader;

constexpr uint64_t kInitUnique = 2;
constexpr uint32_t kSomeFlag = 1u << 3;
constexpr uint32_t kOtherFlag = 1u << 5;

struct InitRequest {
  InHeader header;
  InitIn body;
};
struct InitReply {
  OutHeader header;
  InitOut body;
};

// A kernel at the other end of a socket, and the state that a keeper would hold.
class ChannelTest : public testing::Test {
 protected:
  ChannelTest() : memory_(std::move(KeeperMemory::create()).value()) {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends_), 0);
  }
  ~ChannelTest() override {
    close(ends_[0]);
    close(ends_[1]);
  }

  std::unique_ptr<Channel> make_channel() { return std::make_unique<Channel>(ends_[0], *memory_); }

  void kernel_sends(uint64_t unique, uint32_t opcode) {
    const InHeader header{sizeof(InHeader), opcode, unique, 1, 0, 0, 0, 0, 0};
    ASSERT_EQ(write(ends_[1], &header, sizeof header), static_cast<ssize_t>(sizeof header));
  }
  void kernel_sends_init() {
    InitRequest request{};
    request.header = {sizeof request, uapi::kOpInit, kInitUnique, 0, 0, 0, 0, 0, 0};
    request.body.max_readahead = 131072;
    request.body.flags = uapi::kInitExt | uapi::kInitParallelDirops | kSomeFlag | kOtherFlag;
    request.body.flags2 = uapi::kInit2HasResend | uapi::kInit2Passthrough;
    ASSERT_EQ(write(ends_[1], &request, sizeof request), static_cast<ssize_t>(sizeof request));
  }
  // What libfuse would do: want kSomeFlag, not kOtherFlag.
  ssize_t answer_init(Channel& channel) {
    OutHeader header{sizeof(InitReply), 0, kInitUnique};
    InitOut body{};
    body.max_readahead = 65536;
    body.flags = kSomeFlag;
    iovec parts[] = {{&header, sizeof header}, {&body, sizeof body}};
    return channel.send(parts, 2);
  }
  template <typename T>
  T kernel_receives() {
    T value{};
    EXPECT_EQ(recv(ends_[1], &value, sizeof value, MSG_DONTWAIT),
              static_cast<ssize_t>(sizeof value));
    return value;
  }
  bool kernel_has_nothing() {
    char byte = 0;
    return recv(ends_[1], &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0;
  }
  ssize_t receive(Channel& channel) { return channel.receive(buffer_.data(), buffer_.size()); }
  InHeader received() const {
    InHeader header;
    std::memcpy(&header, buffer_.data(), sizeof header);
    return header;
  }
  // A first worker that agreed and is gone.
  void serve_and_leave() {
    auto first = make_channel();
    kernel_sends_init();
    receive(*first);
    answer_init(*first);
    kernel_receives<InitReply>();
  }

  KeeperMemory memory_;
  int ends_[2] = {-1, -1};
  std::vector<std::byte> buffer_ = std::vector<std::byte>(8192);
};

TEST_F(ChannelTest, AddsWhatLibfuseDoesNotAskFor) {
  auto channel = make_channel();
  kernel_sends_init();
  ASSERT_GT(receive(*channel), 0);
  EXPECT_FALSE(channel->is_agreed());
  ASSERT_GT(answer_init(*channel), 0);
  const InitReply reply = kernel_receives<InitReply>();
  EXPECT_EQ(reply.body.flags & ~uapi::kInitExt, kSomeFlag | uapi::kInitParallelDirops);
  EXPECT_NE(reply.body.flags2 & uapi::kInit2HasResend, 0u);
  EXPECT_EQ(reply.body.max_stack_depth, geteuid() == 0 ? 1u : 0u);
  EXPECT_TRUE(channel->is_agreed());
  EXPECT_TRUE(channel->has_resend());
  EXPECT_EQ(channel->has_passthrough(), geteuid() == 0);
}

TEST_F(ChannelTest, ResumedWorkerSeesOnlyWhatWasAgreed) {
  serve_and_leave();
  auto second = make_channel();
  ASSERT_TRUE(second->is_resumed());
  ASSERT_EQ(receive(*second), static_cast<ssize_t>(sizeof(InitRequest)));
  InitRequest replayed;
  std::memcpy(&replayed, buffer_.data(), sizeof replayed);
  EXPECT_EQ(replayed.header.unique, kInitUnique);
  EXPECT_EQ(replayed.body.flags, uapi::kInitExt | uapi::kInitParallelDirops | kSomeFlag);
  EXPECT_EQ(replayed.body.max_readahead, 65536u);
}

TEST_F(ChannelTest, ResumedWorkersInitReplyIsSwallowed) {
  serve_and_leave();
  auto second = make_channel();
  receive(*second);
  EXPECT_EQ(answer_init(*second), static_cast<ssize_t>(sizeof(InitReply)));
  EXPECT_TRUE(second->is_agreed());
  EXPECT_TRUE(kernel_has_nothing());
  ASSERT_TRUE(second->ask_resend());
  const OutHeader notice = kernel_receives<OutHeader>();
  EXPECT_EQ(notice.unique, 0u);
  EXPECT_EQ(notice.error, uapi::kNotifyResend);
}

TEST_F(ChannelTest, WorkerThatDiedBeforeItAnsweredInitIsNotResumed) {
  auto first = make_channel();
  kernel_sends_init();
  receive(*first);
  first.reset();
  EXPECT_FALSE(make_channel()->is_resumed());
}

TEST_F(ChannelTest, KnowsWhichRequestsCameAgain) {
  serve_and_leave();
  auto second = make_channel();
  receive(*second);
  answer_init(*second);
  kernel_sends(uapi::kUniqueResent | 8, uapi::kOpOpen);
  receive(*second);
  EXPECT_TRUE(Channel::is_request_resent());
  kernel_sends(10, uapi::kOpOpen);
  receive(*second);
  EXPECT_FALSE(Channel::is_request_resent());
}

TEST_F(ChannelTest, AnswersARequestThatKilledThreeWorkers) {
  serve_and_leave();
  for (int i = 0; i < 3; i++) {
    memory_->last_death.store(LastDeath::crashed);
    memory_->died_ns.store(monotonic_ns());
    auto next = make_channel();
    receive(*next);
    answer_init(*next);
    kernel_sends(uapi::kUniqueResent | 8, uapi::kOpOpen);
    kernel_sends(10, uapi::kOpOpen);
    receive(*next);
    if (i < 2) {
      EXPECT_EQ(received().unique, uapi::kUniqueResent | 8);
      receive(*next);
    }
    EXPECT_EQ(received().unique, 10u);  // others are served
  }
  const OutHeader reply = kernel_receives<OutHeader>();
  EXPECT_EQ(reply.unique, uapi::kUniqueResent | 8);
  EXPECT_EQ(reply.error, -EIO);
}

TEST_F(ChannelTest, MarksOneOpenReplyForPassthrough) {
  auto channel = make_channel();
  kernel_sends_init();
  receive(*channel);
  answer_init(*channel);
  kernel_receives<InitReply>();
  struct Reply {
    OutHeader header;
    uapi::OpenOut body;
  };
  Channel::pass_next_open_through(7);
  for (const int32_t expected : {7, 0}) {
    Reply reply{{sizeof(Reply), 0, 12}, {0, uapi::kOpenKeepCache, 0}};
    iovec parts[] = {{&reply.header, sizeof reply.header}, {&reply.body, sizeof reply.body}};
    channel->send(parts, 2);
    const Reply seen = kernel_receives<Reply>();
    EXPECT_EQ(seen.body.backing_id, expected);
    EXPECT_EQ(seen.body.open_flags, expected != 0 ? uapi::kOpenPassthrough : uapi::kOpenKeepCache);
  }
}

}  // namespace
}  // namespace cake
