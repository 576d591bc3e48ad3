#include "store/base/fault.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include <atomic>

namespace cake {

namespace {

struct Plan {
  std::string name;
  std::atomic<int> passages_left{0};
};

// Read once; never destroyed.
Plan* plan() {
  static Plan* const instance = []() -> Plan* {
    const char* text = std::getenv("CAKE_FAULT");
    if (text == nullptr || *text == '\0') return nullptr;
    auto* made = new Plan;
    const char* colon = std::strchr(text, ':');
    made->name = colon ? std::string(text, colon) : std::string(text);
    made->passages_left = colon ? std::atoi(colon + 1) : 1;
    return made;
  }();
  return instance;
}

}  // namespace

void fault_point(const char* name) {
  Plan* const current = plan();
  if (current == nullptr || current->name != name) return;
  if (current->passages_left.fetch_sub(1) == 1) std::raise(SIGKILL);
}

}  // namespace cake
