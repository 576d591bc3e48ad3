// Rows that print for people, for scripts and as JSON.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "tools/command.h"

namespace cake {

// A value and what kind it is; the format decides how it looks.
struct Bytes {
  uint64_t value = 0;
};
struct Percent {  // of 100; shown with one decimal
  double value = 0;
};
struct Ratio {  // shown as 1.52
  double value = 0;
};
struct Time {  // Unix seconds; 0 shows as "-"
  int64_t value = 0;
};
// monostate: not known, "-" and null.
using Cell = std::variant<std::monostate, std::string, uint64_t, Bytes, Percent, Ratio, Time,
                          std::vector<std::string>, bool>;

// Full value for scripts, rounded for people.
std::string cell_text(const Cell& cell, bool for_people);

// Thread-compatible.
class Table {
 public:
  struct Column {
    std::string title;  // "STORED"; the JSON key is its lower case, % spelled _percent
    bool is_right = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as columns.
  void add(std::vector<Cell> row);
  size_t rows() const { return rows_.size(); }

  // quiet prints the first column.  Terminal width cuts the last cell of a line for people when
  // `width` is not 0.
  void print(Format format, std::ostream& out, size_t width = 0) const;

 private:
  void print_human(std::ostream& out, size_t width) const;
  void print_json(std::ostream& out) const;

  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// One object: KEY value lines for people, KEY<tab>value for scripts, an object as JSON, and the
// first value alone when quiet.
class Facts {
 public:
  void add(std::string key, Cell value) { facts_.emplace_back(std::move(key), std::move(value)); }
  void print(Format format, std::ostream& out) const;
  // Of several as JSON: one array of their objects.
  friend void print_json_array(std::span<const Facts> facts, std::ostream& out);

 private:
  std::vector<std::pair<std::string, Cell>> facts_;
};

// Columns of the terminal on stdout, 0 when it is none.
size_t terminal_width();
// Makes control characters of names visible, so that a file name cannot steer the terminal.
std::string printable(std::string_view text);

}  // namespace cake
