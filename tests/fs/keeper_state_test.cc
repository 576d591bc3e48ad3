#include "fs/keeper_state.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace cake {
namespace {

TEST(KeeperMemory, IsSeenByWhoAdoptsIt) {
  auto memory = std::move(KeeperMemory::create()).value();
  memory->upgrades.store(7);
  auto adopted = KeeperMemory::adopt(dup(memory.fd()), false);
  ASSERT_TRUE(adopted);
  EXPECT_EQ((*adopted)->upgrades.load(), 7u);
}

TEST(KeeperMemory, NextProgramClearsTablesOfAnotherVersion) {
  auto memory = std::move(KeeperMemory::create()).value();
  memory->version = kKeeperStateVersion + 1;
  memory->opens[3].node_id.store(9);
  memory->init_reply_bytes.store(80);
  EXPECT_FALSE(KeeperMemory::adopt(dup(memory.fd()), false));
  ASSERT_TRUE(KeeperMemory::adopt(dup(memory.fd()), true));
  EXPECT_EQ(memory->opens[3].node_id.load(), 0u);
  EXPECT_EQ(memory->init_reply_bytes.load(), 80u);
  EXPECT_EQ(memory->has_overflowed, 1u);  // so nothing is opened in a mode that may be wrong
}

TEST(KeeperMemory, RefusesWhatIsNotOne) {
  const int empty = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_FALSE(KeeperMemory::adopt(empty, true));
  close(empty);
  auto memory = std::move(KeeperMemory::create()).value();
  memory->magic++;
  const int fd = dup(memory.fd());
  EXPECT_FALSE(KeeperMemory::adopt(fd, true));
  close(fd);
}

TEST(KeeperDescriptors, AreTwoNumbers) {
  setenv(kKeeperVariable, "5,6", 1);
  const auto found = inherited_descriptors();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->fuse, 5);
  EXPECT_EQ(found->memory, 6);
  for (const char* bad : {"", "5", "5,", "5,x", "-1,6", "5,6,7"}) {
    setenv(kKeeperVariable, bad, 1);
    EXPECT_FALSE(inherited_descriptors()) << bad;
  }
  unsetenv(kKeeperVariable);
  EXPECT_FALSE(inherited_descriptors());
}

}  // namespace
}  // namespace cake
