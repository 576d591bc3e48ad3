// The one table of settings: source of `cake config`, the mount options, the environment variables
// and the manual pages (a test compares them).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "store/base/result.h"

namespace cake {

enum class SettingType {
  size,          // 64M, 1.5GiB, 1000
  percent_size,  // a size, or a share of the file system: 80%
  count,         // whole number
  seconds,       // whole number, or a number with s, m, h, d behind it
  boolean,       // yes, no (also true, false, on, off, 1, 0); as an option the bare key means yes
  mode,          // octal permission bits
  choice,        // one of `words`
  text,
  globs,  // may be given several times; `;` separates patterns in one value
  path,
  url,  // http or https; user:password is refused, because argv and the mount table are public
};

// Immutable.
struct Setting {
  std::string_view key;
  SettingType type;
  std::string_view fallback;  // the default as text; empty: decided when used, see `help`
  std::string_view words;     // "a|b": the choices, or words accepted beside numbers
  std::string_view help;      // one line, no full stop
  bool is_mount_option = true;
  // Key of the opposite flag, as mount options know it: "soft" is hard=no.
  std::string_view opposite = {};
  // A variable that other programs read too; CAKE_<KEY> always works and wins.
  std::string_view shared_variable = {};
};

std::span<const Setting> all_settings();
const Setting* find_setting(std::string_view key);  // nullptr when unknown
// "CAKE_CACHE_SIZE" of "cache_size"; empty for the empty key.
std::string setting_variable(std::string_view key);
// "size", "80%", "yes|no", "auto|raw|zstd": what may be written behind the `=`.
std::string setting_syntax(const Setting& setting);

// The value as it is kept: trimmed of what does not matter ("on" becomes "yes", "2m" "120").
// invalid: says what would be right.  Never repeats a value that may hold a password.
Result<std::string> check_setting(const Setting& setting, std::string_view value);

// The known word that is the fewest edits (at most a third of the letters, at least 1 and at most
// 3) away.
std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string_view> known);
// invalid: "unknown option 'cach_size'; did you mean 'cache_size'?"
Error unknown_setting(std::string_view key);

// "90", "90s", "15m", "12h", "7d" as seconds.
std::optional<uint64_t> parse_seconds(std::string_view text);

}  // namespace cake
