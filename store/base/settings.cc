#include "store/base/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "store/base/bytes.h"

namespace cake {
namespace {

using enum SettingType;

constexpr Setting kSettings[] = {
    // What is shown.
    {"rev", text, "main", "", "revision that names without @REV mean: branch, tag or commit"},
    {"refresh", seconds, "never", "never", "how often a moving name is looked up again"},
    {"subdir", text, "", "", "show only this folder of the repo"},
    {"include", globs, "", "", "show only files that match one of these patterns"},
    {"exclude", globs, "", "", "hide files that match one of these patterns"},
    {"layout", choice, "flat", "flat|hf", "files by their names, or the Hugging Face cache layout"},
    // Where it comes from.
    {"token_file", path, "", "", "file that holds the access token; a token itself is no option"},
    {.key = "endpoint",
     .type = url,
     .fallback = "https://huggingface.co",
     .words = "",
     .help = "address of the hub",
     .shared_variable = "HF_ENDPOINT"},
    {"proxy", url, "", "", "HTTP proxy; without it http_proxy, https_proxy, no_proxy are used"},
    {"cafile", path, "", "", "certificates to trust; without it SSL_CERT_FILE, else the system's"},
    {.key = "offline",
     .type = choice,
     .fallback = "auto",
     .words = "auto|yes|no",
     .help = "yes: never use the network; auto: local names when the hub does not answer",
     .shared_variable = "HF_HUB_OFFLINE"},
    {.key = "hard",
     .type = boolean,
     .fallback = "yes",
     .words = "",
     .help = "reads wait for the network for ever; soft: they fail after retrans attempts",
     .opposite = "soft"},
    {"timeo", seconds, "60", "", "how long one attempt, and any wait for names, may take"},
    {"retrans", count, "5", "", "attempts before a read of a soft mount fails"},
    {"max_conns", count, "64", "", "upper bound of connections"},
    // The store.
    {"store", path, "", "", "store directory; default /var/cache/cake (root) or ~/.cache/cake"},
    {"cache_size", percent_size, "80%", "", "how large the store may grow"},
    {"min_free", percent_size, "5%", "", "space that the store leaves free on its disk"},
    {"codec", choice, "auto", "auto|raw|zstd|rans", "encoding of chunks at rest"},
    {"hot", choice, "off", "off|auto", "auto: keep complete files that are read again unencoded"},
    // Memory and reading ahead.
    {"mem_cache", size, "256M", "", "memory for chunks in flight and decoded"},
    {"readahead", size, "128M", "", "how far one stream reads ahead at most; 0 is off"},
    {"prefetch", choice, "auto", "off|tensor|auto|file|repo", "what is fetched before it is read"},
    // The kernel's side.
    {"uid", count, "", "", "owner of the files; default who mounts"},
    {"gid", count, "", "", "group of the files; default that of who mounts"},
    {"fmode", mode, "0444", "", "permissions of files"},
    {"dmode", mode, "0555", "", "permissions of directories"},
    {"allow_other", boolean, "", "", "let other users in; default yes for root's mounts, else no"},
    {"attr_ttl", seconds, "unlimited", "unlimited", "how long the kernel keeps attributes"},
    {"neg_ttl", seconds, "60", "", "how long the kernel remembers that a name is absent"},
    {"read_ahead_kb", count, "1024", "", "the kernel's own readahead, in KiB (root's mounts)"},
    {"max_background", count, "4096", "", "requests the kernel may have waiting"},
    {"passthrough", choice, "auto", "auto|off", "let the kernel read materialized files itself"},
    // The process.
    {"log", text, "syslog", "", "where messages go: syslog, stderr or a file"},
    {"loglevel", choice, "info", "error|warn|info|debug", "how much is logged"},
    {"pid_file", path, "", "", "file that gets the process id of the mount"},
};

Error wrong(const Setting& setting, std::string_view value, std::string_view wanted) {
  return Error{Errc::invalid, cat(setting.key, "=", value, ": give ", wanted)};
}

// nullopt when `value` is not among `words` ("a|b|c").
std::optional<std::string> find_word(std::string_view words, std::string_view value) {
  while (!words.empty()) {
    const size_t bar = std::min(words.find('|'), words.size());
    if (words.substr(0, bar) == value) return std::string(value);
    words.remove_prefix(std::min(bar + 1, words.size()));
  }
  return std::nullopt;
}

std::optional<uint64_t> parse_count(std::string_view value, int base) {
  uint64_t number = 0;
  const auto [end, error] =
      std::from_chars(value.data(), value.data() + value.size(), number, base);
  if (value.empty() || error != std::errc() || end != value.data() + value.size())
    return std::nullopt;
  return number;
}

std::optional<bool> parse_boolean(std::string_view value) {
  std::string lower(value);
  for (char& letter : lower)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  for (const std::string_view yes : {"yes", "true", "on", "1"})
    if (lower == yes) return true;
  for (const std::string_view no : {"no", "false", "off", "0"})
    if (lower == no) return false;
  return std::nullopt;
}

// The error never repeats the value: it may hold a password.
Result<std::string> check_url(const Setting& setting, std::string_view value) {
  std::string_view rest;
  if (value.starts_with("http://")) rest = value.substr(7);
  if (value.starts_with("https://")) rest = value.substr(8);
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?#"));
  if (authority.find('@') != std::string_view::npos || value.find('@') < value.find('/'))
    return Error{Errc::invalid,
                 cat(setting.key, ": a user or password in the address would be public; use ",
                     setting.key == "proxy" ? "the https_proxy variable" : "token_file")};
  if (authority.empty() || value.find_first_of(" \t\r\n") != std::string_view::npos)
    return Error{Errc::invalid,
                 cat(setting.key, ": give an address that starts with http:// or https://")};
  while (value.ends_with('/')) value.remove_suffix(1);
  return std::string(value);
}

Result<std::string> check_percent_size(const Setting& setting, std::string_view value) {
  if (value.ends_with('%')) {
    const std::optional<uint64_t> percent = parse_count(value.substr(0, value.size() - 1), 10);
    if (percent && *percent <= 100) return std::string(value);
  } else if (parse_size(value)) {
    return std::string(value);
  }
  return wrong(setting, value, "a size such as 200G, or a share such as 80%");
}

// Damerau-Levenshtein distance (optimal string alignment) of two short words.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) previous[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    current[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      const size_t change = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        current[j] = std::min(current[j], before[j - 2] + 1);
    }
    before.swap(previous);
    previous.swap(current);
  }
  return previous[b.size()];
}

}  // namespace

std::span<const Setting> all_settings() {
  return kSettings;
}

const Setting* find_setting(std::string_view key) {
  for (const Setting& setting : kSettings)
    if (setting.key == key) return &setting;
  return nullptr;
}

std::string setting_variable(std::string_view key) {
  if (key.empty()) return {};
  std::string name = "CAKE_";
  for (const char letter : key)
    name += letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
  return name;
}

std::string setting_syntax(const Setting& setting) {
  switch (setting.type) {
    case size:
      return "SIZE";
    case percent_size:
      return "SIZE|PERCENT%";
    case count:
      return "N";
    case seconds:
      return setting.words.empty() ? "SECONDS" : cat(setting.words, "|SECONDS");
    case boolean:
      return "yes|no";
    case mode:
      return "MODE";
    case choice:
      return std::string(setting.words);
    case text:
      return "TEXT";
    case globs:
      return "GLOB";
    case path:
      return "FILE";
    case url:
      return "URL";
  }
  return {};
}

std::optional<uint64_t> parse_seconds(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t scale = 1;
  switch (text.back()) {
    case 's':
      break;
    case 'm':
      scale = 60;
      break;
    case 'h':
      scale = 3600;
      break;
    case 'd':
      scale = 86'400;
      break;
    default:
      scale = 0;
  }
  const std::optional<uint64_t> number =
      parse_count(scale == 0 ? text : text.substr(0, text.size() - 1), 10);
  // A century is enough, and keeps every sum with a clock far from overflow.
  if (!number || *number > 3'200'000'000 / std::max<uint64_t>(scale, 1)) return std::nullopt;
  return *number * std::max<uint64_t>(scale, 1);
}

Result<std::string> check_setting(const Setting& setting, std::string_view value) {
  // What is written to the mount table and to files must stay on one line.
  for (const char letter : value)
    if (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f)
      return Error{Errc::invalid, cat(setting.key, ": control characters are not allowed")};
  const std::optional<std::string> word = find_word(setting.words, value);
  switch (setting.type) {
    case size:
      if (!parse_size(value)) return wrong(setting, value, "a size such as 256M");
      return std::string(value);
    case percent_size:
      return check_percent_size(setting, value);
    case count:
      if (const auto number = parse_count(value, 10); !number || *number > UINT32_MAX)
        return wrong(setting, value, "a whole number");
      return std::string(value);
    case seconds:
      if (word) return *word;
      if (const std::optional<uint64_t> number = parse_seconds(value)) return cat(*number);
      return wrong(setting, value,
                   setting.words.empty() ? "seconds" : cat("seconds, or ", setting.words));
    case boolean:
      if (const std::optional<bool> yes = parse_boolean(value))
        return std::string(*yes ? "yes" : "no");
      return wrong(setting, value, "yes or no");
    case mode:
      if (const auto bits = parse_count(value, 8); !bits || *bits > 0777)
        return wrong(setting, value, "octal permission bits such as 0444");
      return std::string(value);
    case choice:
      if (word) return *word;
      // "on", "1" for "yes", where yes is a choice: HF_HUB_OFFLINE=1.
      if (const std::optional<bool> yes = parse_boolean(value))
        if (const auto same = find_word(setting.words, *yes ? "yes" : "no")) return *same;
      return wrong(setting, value, cat("one of ", setting.words));
    case url:
      return check_url(setting, value);
    case path:
      if (value.empty()) return Error{Errc::invalid, cat(setting.key, ": give a path")};
      return std::string(value);
    case text:
    case globs:
      return std::string(value);
  }
  return std::string(value);
}

std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string_view> known) {
  const size_t limit = std::clamp<size_t>(word.size() / 3, 1, 3);
  size_t best_distance = limit + 1;
  std::optional<std::string> best;
  if (word.size() > 64) return best;
  for (const std::string_view candidate : known) {
    const size_t distance = edit_distance(word, candidate);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = std::string(candidate);
  }
  return best;
}

Error unknown_setting(std::string_view key) {
  if (key == "token" || key == "hf_token")
    return Error{Errc::invalid,
                 "a token is never an option, because options are public: "
                 "put it into a file and give token_file=FILE, or set HF_TOKEN"};
  std::vector<std::string_view> known;
  for (const Setting& setting : kSettings) {
    known.push_back(setting.key);
    if (!setting.opposite.empty()) known.push_back(setting.opposite);
  }
  std::string shown(key.substr(0, 64));
  const std::optional<std::string> near = nearest_word(key, known);
  return Error{Errc::invalid, cat("unknown option '", shown, "'",
                                  near ? cat("; did you mean '", *near, "'?") : std::string())};
}

}  // namespace cake
