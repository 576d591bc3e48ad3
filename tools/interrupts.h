// SIGINT, SIGTERM and SIGHUP as a question that can be asked, for commands that must tidy up.
#pragma once

#include <csignal>

namespace cake {

// From its construction on the signals are blocked, also in threads made later, and only noted.
// Make it before any thread.  Confined to the main thread.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // On the calling thread the signals end the process again, as by default: for waits that leave
  // nothing to tidy up.  Threads made meanwhile would inherit it.
  void let_through();
  void hold();

  // One of them has come while held; stays true.
  bool has_come();

 private:
  sigset_t signals_;
  sigset_t before_;
  bool has_come_ = false;
};

}  // namespace cake
