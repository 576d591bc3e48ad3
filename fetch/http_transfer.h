// One request under way in libcurl: its options, its deadlines, what its answer is checked for.
#pragma once

#include <curl/curl.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fetch/head_patience.h"
#include "fetch/http.h"

namespace cake {

// What all workers share.  Constant after construction, but for what synchronises itself.
struct HttpSettings {
  HttpOptions options;
  std::string ca_file;
  std::string http_proxy;  // for http URLs, when options.proxy is empty
  long user_timeout_ms;
  unsigned slots;             // transfers under way in one worker
  unsigned background_slots;  // of these, at most so many that nobody waits for
  std::unique_ptr<HeadPatience> patience;
};

struct HttpCounters {
  explicit HttpCounters(Metrics& metrics)
      : requests_sent(metrics.counter("fetch.requests_sent")),
        requests_failed(metrics.counter("fetch.requests_failed")),
        bytes_received(metrics.counter("fetch.bytes_received")) {}
  Counter& requests_sent;
  Counter& requests_failed;
  Counter& bytes_received;
};

struct HttpPending {
  HttpRequest request;
  HttpHandlers handlers;
};

// Confined to the HTTP thread.
class HttpTransfer {
 public:
  HttpTransfer(HttpPending pending, const HttpSettings& settings, HttpCounters& counters);

  CURL* easy() { return easy_.get(); }
  bool is_demand() const { return pending_.request.is_demand; }
  const std::string& url() const { return pending_.request.url; }
  // How long the server may take to begin with its answer.
  void wait_for_head(Millis patience) { head_patience_ = patience; }
  Millis head_patience() const { return head_patience_; }
  // From when the question was sent to the head of the answer; nullopt: there is none yet.
  std::optional<Millis> head_time() const;
  // The reason to cut the transfer now, if there is one: its deadline, or that it stalls.
  Status check(const HttpOptions& options);
  // Of the last check(): it was the server's silence.
  bool is_silent() const { return is_silent_; }
  // What libcurl's result means to who asked.
  Status status_of(CURLcode code) const;
  // What is to be told when it is over.
  std::function<void(Status)> take_on_done() { return std::move(pending_.handlers.on_done); }

 private:
  template <typename Value>
  void set(CURLoption option, Value value);
  void set_basics(const HttpSettings& settings);
  void set_request(const HttpSettings& settings);
  void set_callbacks();
  std::string waits_for();
  static size_t header_callback(char* data, size_t size, size_t count, void* user);
  static size_t body_callback(char* data, size_t size, size_t count, void* user);
  bool on_header_line(std::string_view line);
  bool on_head_end();

  struct EasyDeleter {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  };
  struct ListDeleter {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };

  const std::unique_ptr<CURL, EasyDeleter> easy_;
  std::unique_ptr<curl_slist, ListDeleter> headers_;
  HttpPending pending_;
  HttpCounters& counters_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  HttpResponseHead head_;
  size_t head_bytes_ = 0;
  bool is_head_done_ = false;
  bool is_too_large_ = false;
  bool is_ended_ = false;  // by a handler
  bool is_silent_ = false;
  Millis head_patience_{0};
  SteadyTime second_began_, busy_at_;
  uint64_t second_bytes_ = 0;
};

}  // namespace cake
