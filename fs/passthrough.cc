#include "fs/passthrough.h"

#include <optional>

#include "store/base/log.h"

namespace cake {

int32_t Passthrough::register_file(Channel& channel, const ContentRow& content) {
  if (materializer_ == nullptr || content.bytes < Materializer::kLeastBytes) return 0;
  if (is_refused_.load(std::memory_order_relaxed) || !channel.has_passthrough()) return 0;
  const Result<std::optional<File>> file = materializer_->open_file(content);
  if (!file) {
    log_warn(file.error().with("opening a materialized file").message);
    return 0;
  }
  if (!*file) return 0;
  // From here on the kernel holds the file open; our descriptor goes.
  const Result<int32_t> backing_id = channel.register_backing((*file)->fd());
  if (backing_id) return *backing_id;
  if (!is_refused_.exchange(true))
    log_warn(cat("no passthrough on this mount: ", backing_id.error().message));
  return 0;
}

void Passthrough::unregister(Channel& channel, int32_t backing_id) {
  const Status ended = channel.unregister_backing(backing_id);
  if (!ended) log_warn(ended.error().message);
}

OpenRecord Passthrough::open(Channel& channel, uint64_t node, const ContentRow& content) {
  OpenTable& opens = channel.opens();
  int32_t backing_id = 0;
  if (!opens.find(node)) backing_id = register_file(channel, content);
  const OpenMode wanted = backing_id != 0 ? OpenMode::passthrough : OpenMode::cached;
  const OpenRecord record = opens.add(node, wanted, backing_id);
  // Somebody else was first.
  if (backing_id != 0 && (record.mode == OpenMode::cached || record.backing_id != backing_id))
    unregister(channel, backing_id);
  return record;
}

void Passthrough::release(Channel& channel, uint64_t node, bool is_resent) {
  const std::optional<OpenRecord> last = channel.opens().remove(node, is_resent);
  if (last && last->mode == OpenMode::passthrough) unregister(channel, last->backing_id);
}

}  // namespace cake
