#include "tools/interrupts.h"

#include <pthread.h>

#include <ctime>

namespace cake {

Interrupts::Interrupts() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  // Under nohup(1) it is ignored; blocked, it would come all the same.
  struct sigaction on_hangup {};
  if (::sigaction(SIGHUP, nullptr, &on_hangup) == 0 && on_hangup.sa_handler != SIG_IGN)
    sigaddset(&signals_, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals_, &before_);
}

Interrupts::~Interrupts() {
  // What came and was seen must not end the process now.
  while (has_come_) {
    const timespec at_once{};
    if (sigtimedwait(&signals_, nullptr, &at_once) < 0) break;
  }
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Interrupts::let_through() {
  pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
}

void Interrupts::hold() {
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
}

bool Interrupts::has_come() {
  const timespec at_once{};
  if (!has_come_ && sigtimedwait(&signals_, nullptr, &at_once) >= 0) has_come_ = true;
  return has_come_;
}

}  // namespace cake
