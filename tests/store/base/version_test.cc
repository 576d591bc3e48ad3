#include "store/base/version.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>

namespace cake {
namespace {

// Upstreams see it in the User-Agent and `cake upgrade` compares it.
TEST(Version, IsThreeNumbers) {
  EXPECT_TRUE(std::regex_match(std::string(version()), std::regex("[0-9]+\\.[0-9]+\\.[0-9]+")))
      << version();
}

}  // namespace
}  // namespace cake
