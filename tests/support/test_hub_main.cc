// FakeHub as a program, for tests in shell and Python.
//
//   test_hub [--port N] [--cdn-port N] [--dir DIR] [--shape S] [QUERY…]
//
// Prints its URL on the first line, and ends at SIGTERM or SIGINT.  Each QUERY is applied as
// GET /_control?QUERY would be, before the URL is printed.

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/support/fake_hub.h"

int main(int count, char** words) {
  cake::FakeHubOptions options;
  std::vector<std::string> queries;
  for (int i = 1; i < count; i++) {
    const std::string word = words[i];
    const auto value = [&]() -> std::string { return i + 1 < count ? words[++i] : ""; };
    if (word == "--port")
      options.port = static_cast<uint16_t>(std::stoul(value()));
    else if (word == "--cdn-port")
      options.cdn_port = static_cast<uint16_t>(std::stoul(value()));
    else if (word == "--dir")
      options.directory = value();
    else if (word == "--shape")
      queries.push_back("shape=" + value());
    else if (word.starts_with("-")) {
      std::fprintf(stderr, "test_hub: unknown option %s\n", word.c_str());
      return 2;
    } else
      queries.push_back(word);
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // One that comes back on a port that clients know must not answer before it has all it had.
  options.starts_silent = true;
  cake::FakeHub hub(options);
  for (const std::string& query : queries) {
    const cake::HttpServerResponse answer = cake::control(hub, query);
    if (answer.status != 200) {
      std::fprintf(stderr, "test_hub: %s: %s", query.c_str(),
                   std::get<std::string>(answer.body).c_str());
      return 2;
    }
  }
  hub.start_listening();
  std::printf("%s\n", hub.url().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  return 0;
}
