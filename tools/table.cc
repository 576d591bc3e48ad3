#include "tools/table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <clocale>
#include <cstdio>
#include <cwchar>
#include <nlohmann/json.hpp>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/without_controls.h"

namespace cake {
namespace {

using Json = nlohmann::ordered_json;

std::string fixed(double value, const char* pattern) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ",") + word;
  return out.empty() ? "-" : out;
}

std::string json_key(const std::string& title) {
  std::string key;
  for (const char letter : title) {
    if (letter == '%')
      key += "_percent";
    else if (letter == ' ')
      key += '_';
    else
      key += letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  }
  return key;
}

Json to_json(const Cell& cell) {
  struct Visitor {
    Json operator()(std::monostate) const { return nullptr; }
    Json operator()(const std::string& text) const { return text; }
    Json operator()(uint64_t number) const { return number; }
    Json operator()(Bytes bytes) const { return bytes.value; }
    Json operator()(Percent percent) const { return percent.value; }
    Json operator()(Ratio ratio) const { return ratio.value; }
    Json operator()(Time time) const {
      return time.value == 0 ? Json(nullptr) : Json(format_rfc3339(time.value));
    }
    Json operator()(const std::vector<std::string>& words) const { return words; }
    Json operator()(bool value) const { return value; }
  };
  return std::visit(Visitor{}, cell);
}

// Knows how wide letters are, whatever the user's locale: names on hubs are UTF-8.
class Utf8Locale {
 public:
  Utf8Locale() : locale_(newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (locale_ != nullptr) before_ = uselocale(locale_);
  }
  ~Utf8Locale() {
    if (locale_ == nullptr) return;
    uselocale(before_);
    freelocale(locale_);
  }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  const locale_t locale_;  // null: there is no such locale, and every letter takes a column
  locale_t before_ = nullptr;
};

struct Letter {
  size_t bytes = 1, columns = 1;
};

// The first of a text that is not empty, under Utf8Locale.
Letter first_letter(std::string_view text) {
  std::mbstate_t state{};
  wchar_t letter = 0;
  const size_t bytes = std::mbrtowc(&letter, text.data(), text.size(), &state);
  if (bytes == 0 || bytes > text.size()) return {};  // not UTF-8: a terminal shows one mark
  const int columns = wcwidth(letter);
  return {bytes, columns < 0 ? 1 : static_cast<size_t>(columns)};
}

size_t shown_width(std::string_view text) {
  size_t columns = 0;
  for (Letter letter; !text.empty(); text.remove_prefix(letter.bytes)) {
    letter = first_letter(text);
    columns += letter.columns;
  }
  return columns;
}

std::string cut(const std::string& text, size_t width) {
  size_t columns = 0, end = 0;
  while (end < text.size()) {
    const Letter letter = first_letter(std::string_view(text).substr(end));
    if (columns + letter.columns > width) break;
    columns += letter.columns;
    end += letter.bytes;
  }
  return text.substr(0, end);
}

Json object_of(const std::vector<std::pair<std::string, Cell>>& facts) {
  Json object = Json::object();
  for (const auto& [key, cell] : facts) object[json_key(key)] = to_json(cell);
  return object;
}

// Names may hold any bytes; what is not UTF-8 is replaced rather than thrown at the caller, and
// what is not ASCII is escaped, since JSON itself would let U+009B through to a terminal.
void write_json(std::ostream& out, const Json& json) {
  out << json.dump(2, ' ', true, Json::error_handler_t::replace) << '\n';
}

}  // namespace

std::string printable(std::string_view text) {
  return without_controls(text, '?');
}

size_t terminal_width() {
  winsize size{};
  if (isatty(STDOUT_FILENO) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

std::string cell_text(const Cell& cell, bool for_people) {
  struct Visitor {
    bool for_people;
    std::string operator()(std::monostate) const { return "-"; }
    std::string operator()(const std::string& text) const { return printable(text); }
    std::string operator()(uint64_t number) const { return std::to_string(number); }
    std::string operator()(Bytes bytes) const {
      return for_people ? format_size(bytes.value) : std::to_string(bytes.value);
    }
    std::string operator()(Percent percent) const {
      return for_people ? fixed(percent.value, "%.0f%%") : fixed(percent.value, "%.3f");
    }
    std::string operator()(Ratio ratio) const {
      return fixed(ratio.value, for_people ? "%.2f" : "%.6f");
    }
    std::string operator()(Time time) const {
      return time.value == 0 ? "-" : format_rfc3339(time.value);
    }
    std::string operator()(const std::vector<std::string>& words) const {
      return printable(join(words));
    }
    std::string operator()(bool value) const { return value ? "yes" : "no"; }
  };
  return std::visit(Visitor{for_people}, cell);
}

void Table::add(std::vector<Cell> row) {
  CAKE_CHECK(row.size() == columns_.size());
  rows_.push_back(std::move(row));
}

void Table::print_human(std::ostream& out, size_t width) const {
  std::vector<std::vector<std::string>> lines(1);
  for (const Column& column : columns_) lines[0].push_back(column.title);
  for (const std::vector<Cell>& row : rows_) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const Cell& cell : row) line.push_back(cell_text(cell, true));
  }
  const Utf8Locale locale;
  std::vector<size_t> widths(columns_.size());
  for (const std::vector<std::string>& line : lines)
    for (size_t i = 0; i < line.size(); i++) widths[i] = std::max(widths[i], shown_width(line[i]));
  for (const std::vector<std::string>& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); i++) {
      const std::string pad(widths[i] - shown_width(line[i]), ' ');
      text += i == 0 ? "" : "  ";
      text += columns_[i].is_right ? pad + line[i] : line[i] + pad;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out << (width == 0 ? text : cut(text, width)) << '\n';
  }
}

void Table::print_json(std::ostream& out) const {
  Json array = Json::array();
  for (const std::vector<Cell>& row : rows_) {
    Json object = Json::object();
    for (size_t i = 0; i < row.size(); i++) object[json_key(columns_[i].title)] = to_json(row[i]);
    array.push_back(std::move(object));
  }
  write_json(out, array);
}

void Table::print(Format format, std::ostream& out, size_t width) const {
  switch (format) {
    case Format::human:
      print_human(out, width);
      return;
    case Format::json:
      print_json(out);
      return;
    case Format::quiet:
      for (const std::vector<Cell>& row : rows_) out << cell_text(row.front(), false) << '\n';
      return;
    case Format::tabs:
      break;
  }
  for (size_t i = 0; i < columns_.size(); i++) out << (i == 0 ? "" : "\t") << columns_[i].title;
  out << '\n';
  for (const std::vector<Cell>& row : rows_) {
    for (size_t i = 0; i < row.size(); i++) out << (i == 0 ? "" : "\t") << cell_text(row[i], false);
    out << '\n';
  }
}

void Facts::print(Format format, std::ostream& out) const {
  if (format == Format::json) {
    write_json(out, object_of(facts_));
    return;
  }
  size_t width = 0;
  for (const auto& [key, cell] : facts_) width = std::max(width, key.size());
  for (const auto& [key, cell] : facts_) {
    if (format == Format::quiet) {
      out << cell_text(cell, false) << '\n';
      return;
    }
    if (format == Format::tabs)
      out << key << '\t' << cell_text(cell, false) << '\n';
    else
      out << key << std::string(width - key.size() + 2, ' ') << cell_text(cell, true) << '\n';
  }
}

void print_json_array(std::span<const Facts> facts, std::ostream& out) {
  Json array = Json::array();
  for (const Facts& one : facts) array.push_back(object_of(one.facts_));
  write_json(out, array);
}

}  // namespace cake
