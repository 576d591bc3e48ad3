#include "fs/mountinfo.h"

#include <charconv>

#include "store/base/file.h"

namespace cake {
namespace {

// A machine with a hundred thousand mounts has about this much.
constexpr uint64_t kMaxMountinfoBytes = 64 * kMiB;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool parse_number(std::string_view text, unsigned& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse_line(std::string_view line, MountEntry& entry) {
  const std::vector<std::string_view> words = split(line, ' ');
  size_t dash = 6;
  while (dash < words.size() && words[dash] != "-") dash++;
  if (dash + 3 >= words.size()) return false;
  const std::vector<std::string_view> device = split(words[2], ':');
  if (device.size() != 2 || !parse_number(device[0], entry.device_major) ||
      !parse_number(device[1], entry.device_minor))
    return false;
  entry.mount_point = unescape_octal(words[4]);
  entry.type = unescape_octal(words[dash + 1]);
  entry.source = unescape_octal(words[dash + 2]);
  entry.super_options = unescape_octal(words[dash + 3]);
  return true;
}

bool is_octal(char letter) {
  return letter >= '0' && letter <= '7';
}

}  // namespace

std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (const std::string_view line : split(text, '\n')) {
    MountEntry entry;
    if (parse_line(line, entry)) mounts.push_back(std::move(entry));
  }
  return mounts;
}

Result<std::vector<MountEntry>> read_mountinfo() {
  return parse_mountinfo(CAKE_TRY(read_text_file("/proc/self/mountinfo", kMaxMountinfoBytes)));
}

const MountEntry* find_top_mount(const std::vector<MountEntry>& mounts, std::string_view path) {
  for (size_t i = mounts.size(); i-- > 0;)
    if (mounts[i].mount_point == path) return &mounts[i];
  return nullptr;
}

std::string escape_octal(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    if (letter == ' ' || letter == '\t' || letter == '\n' || letter == '\\' || letter == '#') {
      const unsigned code = static_cast<unsigned char>(letter);
      out += '\\';
      for (const unsigned shift : {6u, 3u, 0u})
        out += static_cast<char>('0' + ((code >> shift) & 7));
    } else {
      out += letter;
    }
  }
  return out;
}

std::string unescape_octal(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace cake
