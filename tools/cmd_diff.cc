// cake diff (compare)
#include <CLI/CLI.hpp>
#include <array>
#include <map>
#include <ostream>

#include "store/base/bytes.h"
#include "tools/table.h"
#include "tools/tensor_diff.h"

namespace cake {
namespace {

struct DiffArguments {
  std::string a, b;
  bool tensors = false;
};

struct Row {
  Unit unit;
  Comparison comparison;
};

Result<std::vector<Row>> compare_all(const std::vector<ModelFile>& files_a,
                                     const std::vector<ModelFile>& files_b) {
  const std::vector<Unit> units_a = CAKE_TRY(list_units(files_a));
  std::map<std::string, Unit> others;
  for (const Unit& unit : CAKE_TRY(list_units(files_b))) others.emplace(unit.name, unit);
  // Two files without tensors are compared whatever they are called.
  if (files_a.size() == 1 && files_b.size() == 1 && units_a.size() == 1 && others.size() == 1 &&
      units_a.front().dtype.empty() && others.begin()->second.dtype.empty()) {
    Unit other = others.begin()->second;
    others = {{units_a.front().name, std::move(other)}};
  }
  std::vector<Row> rows;
  for (const Unit& unit : units_a) {
    const auto other = others.find(unit.name);
    if (other == others.end()) {
      rows.push_back({unit, {Comparison::State::only_a, unit.range.length, 0, 0}});
      continue;
    }
    const Comparison comparison =
        CAKE_TRY(compare(files_a[unit.file], unit, files_b[other->second.file], other->second));
    rows.push_back({unit, comparison});
    others.erase(other);
  }
  for (const auto& [name, unit] : others)
    rows.push_back({unit, {Comparison::State::only_b, unit.range.length, 0, unit.range.length}});
  return rows;
}

double bits_percent(const Comparison& comparison) {
  if (comparison.bytes == 0) return 0;
  return 100.0 * static_cast<double>(comparison.bits_differing) /
         (8 * static_cast<double>(comparison.bytes));
}

void print_tensors(Context& context, const std::vector<Row>& rows) {
  Table table({{"STATE"},
               {"TENSOR"},
               {"DTYPE"},
               {"SHAPE"},
               {"BYTES", true},
               {"BITS DIFFERING", true},
               {"DIFFERING%", true},
               {"AS DELTA", true}});
  for (const Row& row : rows) {
    const Unit& unit = row.unit;
    table.add({state_name(row.comparison.state), unit.name,
               unit.dtype.empty() ? Cell() : Cell(unit.dtype),
               unit.dtype.empty() ? Cell() : Cell(shape_text(unit.shape)),
               Bytes{row.comparison.bytes}, row.comparison.bits_differing,
               Percent{bits_percent(row.comparison)}, Bytes{row.comparison.delta_bytes}});
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
}

void print_sums(Context& context, const std::vector<Row>& rows) {
  using State = Comparison::State;
  constexpr std::array<State, 5> kStates = {State::same, State::near, State::different,
                                            State::only_a, State::only_b};
  Table table({{"STATE"},
               {"TENSORS", true},
               {"BYTES", true},
               {"BITS DIFFERING", true},
               {"DIFFERING%", true},
               {"AS DELTA", true}});
  uint64_t shared = 0, saved = 0;
  for (const State state : kStates) {
    uint64_t tensors = 0;
    Comparison sum;
    for (const Row& row : rows) {
      if (row.comparison.state != state) continue;
      tensors++;
      sum.bytes += row.comparison.bytes;
      sum.bits_differing += row.comparison.bits_differing;
      sum.delta_bytes += row.comparison.delta_bytes;
    }
    table.add({state_name(state), tensors, Bytes{sum.bytes}, sum.bits_differing,
               Percent{bits_percent(sum)}, Bytes{sum.delta_bytes}});
    if (state == State::same) shared = sum.bytes;
    if (state == State::near) saved = sum.bytes - std::min(sum.bytes, sum.delta_bytes);
  }
  table.print(context.format, context.out);
  if (context.format == Format::human)
    context.out << format_size(shared) << " are shared; as differences the near ones would save "
                << format_size(saved) << " more (estimated)\n";
}

int run_diff(Context& context, const DiffArguments& arguments) {
  ModelFiles sources(context.config);
  const std::vector<ModelFile> files_a = CAKE_TRY_RUN(context, sources.open(arguments.a));
  const std::vector<ModelFile> files_b = CAKE_TRY_RUN(context, sources.open(arguments.b));
  const std::vector<Row> rows = CAKE_TRY_RUN(context, compare_all(files_a, files_b));
  if (arguments.tensors)
    print_tensors(context, rows);
  else
    print_sums(context, rows);
  for (const Row& row : rows)
    if (row.comparison.state != Comparison::State::same) return kExitFailed;
  return kExitOk;
}

}  // namespace

void add_diff(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("diff", "Compare two models tensor by tensor");
  verb->alias("compare");
  const auto arguments = std::make_shared<DiffArguments>();
  verb->add_option("A", arguments->a, "Repo, folder or file; or a path with / or ./")->required();
  verb->add_option("B", arguments->b, "What to compare it with")->required();
  verb->add_flag("--tensors", arguments->tensors, "One line a tensor");
  verb->callback([arguments, &run] {
    run = [arguments](Context& context) { return run_diff(context, *arguments); };
  });
}

}  // namespace cake
