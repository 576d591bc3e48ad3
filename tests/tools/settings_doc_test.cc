// The table of settings against the places that describe it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "store/base/bytes.h"
#include "store/base/config.h"
#include "store/base/file.h"

namespace cake {
namespace {

std::string source_file(const std::string& name) {
  const char* root = std::getenv("CAKE_SOURCE_DIR");
  const Result<std::string> text =
      read_text_file(cat(root == nullptr ? "." : root, "/", name), kMiB);
  EXPECT_TRUE(text) << name << " (run with CAKE_SOURCE_DIR set)";
  return text ? *text : "";
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines(1);
  for (const char letter : text) {
    if (letter == '\n')
      lines.emplace_back();
    else
      lines.back() += letter;
  }
  return lines;
}

// ".It Cm rev Ns = Ns Ar TEXT" gives "rev" and "TEXT", up to the next item.
struct Item {
  std::string syntax, text;
};
std::map<std::string, Item> items_of(const std::string& page) {
  std::map<std::string, Item> items;
  Item* current = nullptr;
  for (const std::string& line : lines_of(page)) {
    constexpr std::string_view kStart = ".It Cm ", kValue = " Ns = Ns Ar ";
    const size_t value = line.find(kValue);
    if (line.starts_with(kStart) && value != std::string::npos) {
      const std::string key = line.substr(kStart.size(), value - kStart.size());
      EXPECT_FALSE(items.contains(key)) << key << " is described twice";
      current = &items[key];
      current->syntax = line.substr(value + kValue.size());
    } else if (line.starts_with(".It ") || line == ".El") {
      current = nullptr;
    } else if (current != nullptr) {
      current->text += line + "\n";
    }
  }
  return items;
}

void expect_described(const std::string& name, bool only_mount_options) {
  std::map<std::string, Item> items = items_of(source_file(name));
  for (const Setting& setting : all_settings()) {
    if (only_mount_options && !setting.is_mount_option) continue;
    const auto item = items.find(std::string(setting.key));
    ASSERT_NE(item, items.end()) << name << " does not describe " << setting.key;
    if (setting.type != SettingType::path) {  // a store is a DIR, a token a FILE
      EXPECT_EQ(item->second.syntax, setting_syntax(setting)) << name << ": " << setting.key;
    }
    if (!setting.fallback.empty() && setting.type != SettingType::boolean) {
      EXPECT_NE(item->second.text.find(cat("Default ", setting.fallback, ".")), std::string::npos)
          << name << " has another default of " << setting.key;
    }
    items.erase(item);
  }
  for (const auto& [key, item] : items) ADD_FAILURE() << name << " describes unknown " << key;
}

TEST(SettingsDoc, ConfigurationPageDescribesTheTable) {
  expect_described("man/cakefs.conf.5", false);
}

TEST(SettingsDoc, MountPageDescribesTheTable) {
  expect_described("man/mount.cakefs.8", true);
}

// Each line "#key = value" of the sample is a setting at its default, or one whose default depends.
TEST(SettingsDoc, SampleShowsDefaultsThatAreTrue) {
  std::set<std::string> seen;
  for (const std::string& line : lines_of(source_file("tools/dist/cakefs.conf"))) {
    const size_t equals = line.find(" = ");
    if (!line.starts_with('#') || line.starts_with("# ") || equals == std::string::npos) continue;
    const std::string key = line.substr(1, equals - 1);
    const std::string value = line.substr(equals + 3);
    const Setting* setting = find_setting(key);
    ASSERT_NE(setting, nullptr) << key;
    EXPECT_TRUE(check_setting(*setting, value)) << line;
    if (!setting->fallback.empty()) {
      EXPECT_EQ(value, setting->fallback) << key;
    }
    seen.insert(key);
  }
  EXPECT_GT(seen.size(), 20u);
  // These are the mount's own business rather than the machine's.
  const std::set<std::string> left_out = {"subdir", "allow_other", "attr_ttl", "pid_file"};
  for (const Setting& setting : all_settings())
    EXPECT_TRUE(seen.contains(std::string(setting.key)) ||
                left_out.contains(std::string(setting.key)))
        << "tools/dist/cakefs.conf leaves out " << setting.key;
}

TEST(SettingsDoc, SampleLoads) {
  const char* root = std::getenv("CAKE_SOURCE_DIR");
  ConfigSources sources;
  sources.system_file = cat(root == nullptr ? "." : root, "/tools/dist/cakefs.conf");
  EXPECT_TRUE(Config::load(sources));
}

}  // namespace
}  // namespace cake
