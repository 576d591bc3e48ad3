#include "tests/support/fake_body.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace cake {

namespace {

constexpr Millis kBurst{20};  // what may go at once, in time

BodySource source_of(HttpBody body) {
  if (auto* stream = std::get_if<StreamBody>(&body)) return std::move(stream->source);
  if (auto* text = std::get_if<std::string>(&body)) {
    auto shared = std::make_shared<const std::string>(std::move(*text));
    return [shared](uint64_t offset, MutableByteSpan out) {
      const ByteSpan rest = as_bytes(*shared).subspan(offset);
      const size_t count = std::min(out.size(), rest.size());
      std::copy_n(rest.begin(), count, out.begin());
      return BodyStep{.count = count};
    };
  }
  auto file = std::make_shared<const FileBody>(std::move(std::get<FileBody>(body)));
  return [file](uint64_t offset, MutableByteSpan out) {
    const size_t count = std::min<uint64_t>(out.size(), file->range.length - offset);
    const auto got = file->file.read_at(file->range.offset + offset, out.first(count));
    if (!got || *got == 0) return BodyStep{.kind = BodyStep::Kind::cut};
    return BodyStep{.count = *got};
  };
}

uint32_t crc32(ByteSpan bytes) {
  uint32_t crc = 0xffffffffU;
  for (const std::byte byte : bytes) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

// RFC 1952 around stored blocks (RFC 1951, 3.2.4): no smaller, but gzip all the same.
std::string gzip_stored(ByteSpan bytes) {
  std::string out("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", 10);
  const auto put = [&](uint64_t value, int width) {
    for (int i = 0; i < width; i++) out += static_cast<char>((value >> (8 * i)) & 0xff);
  };
  size_t at = 0;
  do {
    const size_t part = std::min<size_t>(65'535, bytes.size() - at);
    out += at + part == bytes.size() ? '\x01' : '\x00';
    put(part, 2);
    put(part ^ 0xffffU, 2);
    out += as_text(bytes.subspan(at, part));
    at += part;
  } while (at < bytes.size());
  put(crc32(bytes), 4);
  put(bytes.size(), 4);
  return out;
}

// The whole body at once; for the gzip fault only, so a modest limit is no loss.
HttpBody gzip_body(HttpBody body) {
  const uint64_t length = body_bytes(body);
  CAKE_CHECK(length <= 64 * kMiB);
  const BodySource source = source_of(std::move(body));
  Buffer plain(length);
  for (uint64_t at = 0; at < length;) {
    const BodyStep step = source(at, MutableByteSpan(plain).subspan(at));
    CAKE_CHECK(step.kind == BodyStep::Kind::bytes && step.count > 0);
    at += step.count;
  }
  return gzip_stored(plain);
}

// What a body in trouble keeps between two questions.
struct State {
  BodySource source;
  BodyTrouble trouble;
  uint64_t bytes = 0;
  uint64_t releases_at_start = 0;
  bool is_counted_stalled = false;

  ~State() {
    if (is_counted_stalled) (*trouble.stalled)--;
  }
  BodyStep next(uint64_t offset, MutableByteSpan out);
};

BodyStep State::next(uint64_t offset, MutableByteSpan out) {
  uint64_t limit = std::min<uint64_t>(out.size(), bytes - offset);
  if (limit == 0) return BodyStep{};
  const auto stop_at = [&](uint64_t place) {
    if (offset < place) limit = std::min(limit, place - offset);
    return offset >= place;
  };
  if (trouble.cut_at && stop_at(*trouble.cut_at))
    return {.kind = trouble.is_reset ? BodyStep::Kind::reset : BodyStep::Kind::cut};
  const bool may_stall = trouble.stall_at && *trouble.releases == releases_at_start;
  if (may_stall && stop_at(*trouble.stall_at)) {
    if (!is_counted_stalled) (*trouble.stalled)++;
    is_counted_stalled = true;
    return {.kind = BodyStep::Kind::wait};
  }
  if (is_counted_stalled) (*trouble.stalled)--;
  is_counted_stalled = false;
  BodyStep wait{.kind = BodyStep::Kind::wait};
  for (Link* link : {trouble.own_link.get(), trouble.link}) {
    limit = link->take(limit, wait.until);
    if (limit == 0) return wait;
  }
  const BodyStep step = source(offset, out.first(limit));
  if (step.kind != BodyStep::Kind::bytes) return step;
  if (trouble.flip_at && *trouble.flip_at >= offset && *trouble.flip_at < offset + step.count)
    out[*trouble.flip_at - offset] ^= std::byte{0x20};
  trouble.on_sent(step.count);
  return step;
}

}  // namespace

uint64_t Link::take(uint64_t wanted, SteadyTime& until) {
  const uint64_t per_second = rate.load();
  if (per_second == 0) return wanted;
  MutexLock lock(mutex_);
  const SteadyTime now = steady_now();
  free_at_ = std::max(free_at_, now);
  if (free_at_ > now + kBurst) {
    until = free_at_ - kBurst / 2;
    return 0;
  }
  const uint64_t granted =
      std::min(wanted, std::max<uint64_t>(1, per_second * kBurst.count() / 1000));
  free_at_ += std::chrono::nanoseconds(granted * 1'000'000'000 / per_second);
  return granted;
}

HttpBody troubled_body(HttpBody body, const BodyTrouble& trouble) {
  if (trouble.is_gzip) body = gzip_body(std::move(body));
  auto state = std::make_shared<State>();
  state->trouble = trouble;
  state->bytes = body_bytes(body);
  if (trouble.is_short && state->bytes > 0) state->bytes--;
  state->releases_at_start = trouble.releases->load();
  state->source = source_of(std::move(body));
  if (state->bytes == 0) return std::string();
  return StreamBody{
      [state](uint64_t offset, MutableByteSpan out) { return state->next(offset, out); },
      state->bytes};
}

void shift_content_range(std::vector<HttpHeader>& headers) {
  for (HttpHeader& header : headers) {
    unsigned long long first = 0, last = 0, total = 0;
    if (header.name == "Content-Range" &&
        std::sscanf(header.value.c_str(), "bytes %llu-%llu/%llu", &first, &last, &total) == 3)
      header.value = cat("bytes ", first + 1, '-', last + 1, '/', total);
  }
}

}  // namespace cake
