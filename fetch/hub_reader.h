// Ranges of files from a hub: its resolve URLs, and the signed URLs that they redirect to.
#pragma once

#include <memory>

#include "fetch/file_routes.h"
#include "fetch/hub_session.h"
#include "fetch/upstream.h"

namespace cake {

// Nothing but bytes of the range reaches a sink: every answer is checked before its body is looked
// at (status, Content-Range, total size, encoding, commit, etag).  Thread-safe.
class HubReader : public std::enable_shared_from_this<HubReader> {
 public:
  HubReader(std::shared_ptr<HubSession> session, Metrics& metrics);

  // As Upstream::read.
  void read(const FileAddress& file, ByteRange range, bool is_demand, Deadline deadline,
            std::shared_ptr<RangeSink> sink);

 private:
  struct Read;  // a call of read under way
  using ReadPtr = std::shared_ptr<Read>;

  void start(ReadPtr read);
  void lead(ReadPtr read);
  void send(ReadPtr read);
  void transmit(ReadPtr read);
  void go(ReadPtr read, const Route& route);

  bool on_head(Read& read, const HttpResponseHead& head);
  Status take_redirect(Read& read, const HttpResponseHead& head);
  Status take_bytes(Read& read, const HttpResponseHead& head);
  Status take_whole_body(Read& read);
  bool on_body(Read& read, ByteSpan bytes);
  void on_done(const ReadPtr& read, Status status);
  void leave_route(const Read& read, Errc failure);
  void take_failure(const ReadPtr& read);
  void settle(Read& read, Millis life);
  void finish(const ReadPtr& read, Status status);
  void look_after_waiting();

  // Constant after construction.
  const std::shared_ptr<HubSession> session_;
  Counter& resolves_sent_;
  Counter& urls_refreshed_;
  FileRoutes<Read> routes_;  // synchronises itself
};

}  // namespace cake
