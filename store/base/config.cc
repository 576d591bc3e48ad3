#include "store/base/config.h"

#include <pwd.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

#include "store/base/bytes.h"
#include "store/base/file.h"

namespace cake {
namespace {

constexpr std::string_view kSystemFile = "/etc/cakefs.conf";
// Far more than every key with a comment; a mistyped path to a weight file ends here.
constexpr uint64_t kMaxFileBytes = kMiB;

std::optional<uint64_t> parse_number(std::string_view text, int base = 10) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

const Setting& known_setting(std::string_view key) {
  const Setting* setting = find_setting(key);
  CAKE_CHECK(setting != nullptr);
  return *setting;
}

std::optional<std::string> find_process_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

}  // namespace

uint64_t PercentSize::bytes_of(uint64_t total_bytes) const {
  if (!is_percent) return value;
  return total_bytes / 100 * value + total_bytes % 100 * value / 100;
}

std::string home_directory() {
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') return home;
  if (const passwd* entry = getpwuid(geteuid()); entry != nullptr && entry->pw_dir != nullptr)
    return entry->pw_dir;
  return "/";
}

ConfigSources ConfigSources::of_process(bool with_user_file) {
  ConfigSources sources;
  sources.system_file = find_process_variable("CAKE_CONFIG").value_or(std::string(kSystemFile));
  if (with_user_file) sources.user_file = home_directory() + "/.config/cakefs.conf";
  sources.find_variable = find_process_variable;
  return sources;
}

Result<Config> Config::load(const ConfigSources& sources) {
  Config config;
  for (const std::string& file : {sources.system_file, sources.user_file})
    if (!file.empty()) CAKE_TRY(config.load_file(file));
  if (!sources.find_variable) return config;
  for (const Setting& setting : all_settings()) {
    // The last one wins.
    const std::pair<std::string_view, std::string> names[] = {
        {setting.key, std::string(setting.shared_variable)},
        {setting.key, setting_variable(setting.key)},
        {setting.opposite, setting_variable(setting.opposite)}};
    for (const auto& [key, name] : names) {
      if (name.empty()) continue;
      const std::optional<std::string> value = sources.find_variable(name);
      if (!value) continue;
      // HF_HUB_OFFLINE=0 asks for nothing: it is every program's default.
      if (name == "HF_HUB_OFFLINE" && check_setting(setting, *value).ok() &&
          *check_setting(setting, *value) != "yes")
        continue;
      const Status status = config.set(key, *value, name);
      if (!status) return status.error().with(name);
    }
  }
  return config;
}

Status Config::load_file(const std::string& path) {
  const Result<std::string> content = read_text_file(path, kMaxFileBytes);
  if (!content) {
    if (content.error().code == Errc::not_found) return {};
    return content.error();
  }
  std::string_view rest = *content;
  for (int number = 1; !rest.empty(); number++) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = trimmed(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.empty() || line.front() == '#') continue;
    const std::string place = cat(path, ":", number);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos)
      return Error{Errc::invalid, cat(place, ": expected 'key = value'")};
    const Status status =
        set(trimmed(line.substr(0, equals)), trimmed(line.substr(equals + 1)), place);
    if (!status) return status.error().with(place);
  }
  return {};
}

Status Config::set(std::string_view key, std::string_view value, const std::string& origin) {
  const Setting* setting = find_setting(key);
  bool is_opposite = false;
  for (const Setting& candidate : all_settings()) {
    if (candidate.opposite.empty() || candidate.opposite != key) continue;
    setting = &candidate;
    is_opposite = true;
  }
  if (setting == nullptr) return unknown_setting(key);
  std::string checked = CAKE_TRY(check_setting(*setting, value));
  if (is_opposite) checked = checked == "yes" ? "no" : "yes";

  Value& slot = values_[std::string(setting->key)];
  // Lines of one file count as one origin.
  const auto layer = [](const std::string& place) { return place.substr(0, place.rfind(':')); };
  const bool is_more = setting->type == SettingType::globs && !slot.origin.empty() &&
                       layer(slot.origin) == layer(origin);
  slot.text = is_more ? cat(slot.text, ";", checked) : checked;
  slot.origin = origin;
  return {};
}

Status Config::set_option(std::string_view option, const std::string& origin) {
  const size_t equals = option.find('=');
  const std::string_view key = option.substr(0, equals);
  const Setting* setting = nullptr;
  for (const Setting& candidate : all_settings())
    if (candidate.is_mount_option && (candidate.key == key || candidate.opposite == key))
      setting = &candidate;
  if (setting == nullptr || key.empty()) return unknown_setting(key);
  if (equals != std::string_view::npos) return set(key, option.substr(equals + 1), origin);
  if (setting->type != SettingType::boolean)
    return Error{Errc::invalid, cat(key, ": give a value, ", key, "=", setting_syntax(*setting))};
  return set(key, "yes", origin);
}

std::vector<std::string> Config::split_options(std::string_view list) {
  std::vector<std::string> options;
  std::string current;
  for (size_t i = 0; i < list.size(); i++) {
    if (list[i] == '\\' && i + 1 < list.size() && (list[i + 1] == ',' || list[i + 1] == '\\')) {
      current += list[++i];
    } else if (list[i] == ',') {
      if (!current.empty()) options.push_back(std::move(current));
      current.clear();
    } else {
      current += list[i];
    }
  }
  if (!current.empty()) options.push_back(std::move(current));
  return options;
}

Config::Value Config::get(std::string_view key) const {
  const Setting& setting = known_setting(key);
  const auto found = values_.find(key);
  if (found != values_.end()) return found->second;
  return Value{std::string(setting.fallback), "default"};
}

bool Config::is_set(std::string_view key) const {
  return values_.find(known_setting(key).key) != values_.end();
}

std::string Config::text(std::string_view key) const {
  return get(key).text;
}

uint64_t Config::size(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::size);
  return parse_size(get(key).text).value_or(0);
}

PercentSize Config::percent_size(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::percent_size);
  const std::string value = get(key).text;
  if (value.ends_with('%'))
    return {true, parse_number(std::string_view(value).substr(0, value.size() - 1)).value_or(0)};
  return {false, parse_size(value).value_or(0)};
}

bool Config::boolean(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::boolean);
  const std::string value = get(key).text;
  // The one flag whose default depends on who asks.
  if (value.empty() && key == "allow_other") return geteuid() == 0;
  return value == "yes";
}

uint32_t Config::mode(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::mode);
  return static_cast<uint32_t>(parse_number(get(key).text, 8).value_or(0));
}

std::vector<std::string> Config::globs(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::globs);
  const std::string value = get(key).text;
  std::vector<std::string> patterns;
  for (std::string_view rest = value; !rest.empty();) {
    const size_t end = std::min(rest.find(';'), rest.size());
    if (end > 0) patterns.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return patterns;
}

std::optional<uint64_t> Config::count(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::count);
  return parse_number(get(key).text);
}

std::optional<uint64_t> Config::seconds(std::string_view key) const {
  CAKE_CHECK(known_setting(key).type == SettingType::seconds);
  return parse_number(get(key).text);
}

std::string Config::store_directory() const {
  const std::string given = get("store").text;
  if (!given.empty()) return given.starts_with("~/") ? home_directory() + given.substr(1) : given;
  return geteuid() == 0 ? "/var/cache/cake" : home_directory() + "/.cache/cake";
}

std::vector<std::string> Config::explicit_options() const {
  std::vector<std::string> options;
  for (const Setting& setting : all_settings()) {
    const auto found = values_.find(setting.key);
    if (found != values_.end()) options.push_back(cat(setting.key, "=", found->second.text));
  }
  return options;
}

}  // namespace cake
