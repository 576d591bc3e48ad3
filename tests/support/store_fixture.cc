#include "tests/support/store_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#include <random>

namespace cake {

StoreOptions small_store_options(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.codec = CodecChoice::raw;
  options.threads = 2;
  options.cache_size = PercentSize{false, kGiB};
  return options;
}

bool is_long() {
  const char* value = std::getenv("CAKE_LONG");
  return value != nullptr && std::string_view(value) == "1";
}

StoreFixture::StoreFixture(const std::string& directory, CodecChoice codec) {
  StoreOptions options;
  options.directory = directory;
  options.codec = codec;
  options.threads = 2;
  store_ = must(Store::open(options, metrics_));
}

ChunkPtr StoreFixture::chunk(ByteSpan bytes) {
  auto buffer = store_->buffers().allocate(bytes.size());
  std::memcpy(buffer->bytes().data(), bytes.data(), bytes.size());
  return buffer;
}

void StoreFixture::put(RowId content, uint64_t ordinal, ByteSpan bytes,
                       std::function<void(const Digest&, Result<Location>)> done) {
  PutRequest request;
  request.content = content;
  if (const auto row = must(index().find_content(content)))
    request.content_name = content_pack_name(row->source, row->key);
  request.ordinal = ordinal;
  request.plain = chunk(bytes);
  request.done = std::move(done);
  chunks().put(std::move(request));
}

std::optional<Buffer> StoreFixture::find(const Digest& digest) {
  const auto locations = must(index().find_chunks(std::span(&digest, 1)));
  if (!locations[0]) return std::nullopt;
  return to_buffer(must(chunks().read(*locations[0]))->bytes());
}

RowId StoreFixture::content(const std::string& path, uint64_t bytes) {
  const RowId repo = must(index().get_repo("hf:https://hub.test", {RepoType::model, "org/name"}));
  TreeEntry entry;
  entry.path = path;
  entry.bytes = bytes;
  entry.ids.sha256 = blake3(as_bytes(path)).hex();
  const std::string commit = blake3(as_bytes("commit" + path)).hex().substr(0, 40);
  const auto snapshot = must(index().put_snapshot(repo, commit, 1'700'000'000, {entry}));
  must(chunks().record_snapshot("hf:https://hub.test", *snapshot));
  return snapshot->content_id(0);
}

int run_self(const std::string& name,
             std::vector<std::pair<std::string, std::string>> environment) {
  const pid_t child = ::fork();
  CAKE_CHECK(child >= 0);
  if (child == 0) {
    for (const auto& [key, value] : environment) ::setenv(key.c_str(), value.c_str(), 1);
    const std::string filter = "--gtest_filter=" + name;
    ::execl("/proc/self/exe", "self", filter.c_str(), "--gtest_also_run_disabled_tests",
            "--gtest_brief=1", nullptr);
    ::_exit(127);
  }
  int status = 0;
  CAKE_CHECK(::waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace cake
