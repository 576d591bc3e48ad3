// The values of the settings, in layers: defaults < system file < user file < environment <
// options.  Each value knows where it came from.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/base/result.h"
#include "store/base/settings.h"

namespace cake {

// A budget on a disk: bytes, or a share of the whole.
struct PercentSize {
  bool is_percent = false;
  uint64_t value = 0;
  uint64_t bytes_of(uint64_t total_bytes) const;
};

// Where the lower layers are.
struct ConfigSources {
  std::string system_file;  // "" for none
  std::string user_file;    // "" for none: mounts never read it
  std::function<std::optional<std::string>(const std::string&)> find_variable;

  // This process's: CAKE_CONFIG or /etc/cakefs.conf, ~/.config/cakefs.conf, getenv.
  static ConfigSources of_process(bool with_user_file);
};

// Home of the calling user ($HOME, else the password database).
std::string home_directory();

// Thread-compatible.
class Config {
 public:
  struct Value {
    std::string text;
    std::string origin;  // "default", "/etc/cakefs.conf:3", "CAKE_STORE", "-o", "--store"
  };

  // The defaults alone.
  Config() = default;

  // Defaults, files, environment.  Absent files are fine.  invalid: unknown key or malformed value,
  // naming the place; io, denied: a file cannot be read.
  static Result<Config> load(const ConfigSources& sources);

  // One value, over all before.  `key` may be an opposite ("soft").  A key of type globs given
  // twice with the same origin keeps both.
  Status set(std::string_view key, std::string_view value, const std::string& origin);
  // "key" alone means yes for a flag; only mount options are taken.
  Status set_option(std::string_view option, const std::string& origin);
  // "a=1,b,c=x\,y": commas and backslashes are escaped by a backslash.
  static std::vector<std::string> split_options(std::string_view list);

  // `key` must be known (CAKE_CHECK); the type must be the table's.
  Value get(std::string_view key) const;
  bool is_set(std::string_view key) const;  // not the default
  std::string text(std::string_view key) const;
  uint64_t size(std::string_view key) const;
  PercentSize percent_size(std::string_view key) const;
  bool boolean(std::string_view key) const;
  uint32_t mode(std::string_view key) const;
  std::vector<std::string> globs(std::string_view key) const;
  // nullopt when it has no number: the default is decided elsewhere, or it is a word ("never").
  std::optional<uint64_t> count(std::string_view key) const;
  std::optional<uint64_t> seconds(std::string_view key) const;

  // store=, or its default for this user.
  std::string store_directory() const;

  // Every value that is not a default, "key=value", in the order of the table: what another process
  // needs to see the same settings.  Not escaped.
  std::vector<std::string> explicit_options() const;

 private:
  Status load_file(const std::string& path);

  std::map<std::string, Value, std::less<>> values_;  // without defaults
};

}  // namespace cake
