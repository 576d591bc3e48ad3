#include "fetch/credentials.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>

#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

constexpr uint64_t kMaxTokenFileBytes = 64 * kKiB;
constexpr size_t kMaxTokenBytes = 4 * kKiB;

bool is_truthy(const std::optional<std::string>& value) {
  if (!value) return false;
  std::string upper = *value;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char letter) {
    return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
  });
  return upper == "1" || upper == "ON" || upper == "YES" || upper == "TRUE";
}

std::string_view stripped(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// A token goes into a header: a line break in it would start another one.
Result<std::string> checked_token(std::string_view text, std::string_view origin) {
  const std::string_view token = stripped(text);
  const bool is_plain = std::all_of(token.begin(), token.end(),
                                    [](char letter) { return letter > 0x20 && letter < 0x7f; });
  if (!is_plain || token.size() > kMaxTokenBytes)
    return Error{Errc::invalid, cat("the token in ", origin,
                                    " is not a token: it has blanks, "
                                    "control or non-ASCII characters, or is too long")};
  return std::string(token);
}

bool is_name_letter(char letter) {
  return letter == '_' || (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
         (letter >= 'A' && letter <= 'Z');
}

// "~/x", "$HOME/x" and "${HOME}/x", as the Python tools expand them; unknown variables stay.
std::string expanded(std::string_view path, const Environment& environment) {
  std::string out;
  if (path == "~" || path.starts_with("~/")) {
    out = environment("HOME").value_or("~");
    path.remove_prefix(1);
  }
  while (!path.empty()) {
    const size_t dollar = std::min(path.find('$'), path.size());
    out += path.substr(0, dollar);
    path.remove_prefix(dollar);
    if (path.empty()) break;
    const bool has_braces = path.size() > 1 && path[1] == '{';
    size_t end = has_braces ? 2 : 1;
    const size_t start = end;
    while (end < path.size() && is_name_letter(path[end])) end++;
    const std::string name(path.substr(start, end - start));
    if (has_braces && end < path.size() && path[end] == '}') end++;
    const std::optional<std::string> value =
        name.empty() ? std::nullopt : environment(name.c_str());
    out += value ? std::string_view(*value) : path.substr(0, end);
    path.remove_prefix(end);
  }
  return out;
}

std::string implicit_path(const Environment& environment) {
  const auto set = [&](const char* name) { return environment(name).value_or(""); };
  if (const std::string path = set("HF_TOKEN_PATH"); !path.empty())
    return expanded(path, environment);
  if (const std::string home = set("HF_HOME"); !home.empty())
    return expanded(home, environment) + "/token";
  if (const std::string cache = set("XDG_CACHE_HOME"); !cache.empty())
    return expanded(cache, environment) + "/huggingface/token";
  if (const std::string home = set("HOME"); !home.empty())
    return home + "/.cache/huggingface/token";
  return "";
}

int64_t nanoseconds(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

std::optional<std::string> process_environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

Credentials::Credentials(std::string token_file, const Environment& environment)
    : fixed_(std::string()) {
  if (!token_file.empty()) {
    path_ = origin_ = std::move(token_file);
    must_exist_ = true;
    return;
  }
  if (is_truthy(environment("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return;
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    Result<std::string> token = checked_token(environment(name).value_or(""), name);
    if (token && token->empty()) continue;
    origin_ = name;
    fixed_ = std::move(token);
    return;
  }
  path_ = origin_ = implicit_path(environment);
}

Credentials::FileState Credentials::look() const {
  struct stat info {};
  if (::stat(path_.c_str(), &info) != 0) return {};
  return FileState{.exists = true,
                   .device = info.st_dev,
                   .inode = info.st_ino,
                   .bytes = static_cast<uint64_t>(info.st_size),
                   .changed_ns = nanoseconds(info.st_ctim),
                   .modified_ns = nanoseconds(info.st_mtim)};
}

Result<std::string> Credentials::read() const {
  const Result<std::string> text = read_text_file(path_, kMaxTokenFileBytes);
  if (text) return checked_token(*text, path_);
  if (text.error().code == Errc::not_found && !must_exist_) return std::string();
  return Error{Errc::denied, text.error().message}.with("token file");
}

Result<std::string> Credentials::token() const {
  if (path_.empty()) return fixed_;
  MutexLock lock(mutex_);
  const FileState now = look();
  // A state that could not be looked at is read anyway: the reader says why.
  if (cached_ && seen_ == now && now.exists) return *cached_;
  seen_ = now;
  cached_ = read();
  return *cached_;
}

}  // namespace cake
