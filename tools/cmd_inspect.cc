// cake inspect, hash
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>

#include "store/base/bytes.h"
#include "store/format/safetensors.h"
#include "tools/model_file.h"
#include "tools/table.h"

namespace cake {
namespace {

// What the store has of a run of a file.
struct Holding {
  uint64_t bytes = 0, cached_bytes = 0, stored_bytes = 0;
  std::map<std::string, uint64_t> codecs;  // stored bytes by codec
  std::vector<Digest> digests;
  bool knows_all = true;  // digests

  void add(const KnownExtent& known) {
    bytes += known.extent.length;
    knows_all = knows_all && !known.digest.is_zero();
    digests.push_back(known.digest);
    if (!known.location) return;
    cached_bytes += known.extent.length;
    stored_bytes += known.location->encoded_bytes;
    codecs[std::string(codec_name(known.location->codec))] += known.location->encoded_bytes;
  }
  void add(const Holding& other) {
    bytes += other.bytes;
    cached_bytes += other.cached_bytes;
    stored_bytes += other.stored_bytes;
    for (const auto& [name, stored] : other.codecs) codecs[name] += stored;
  }
  double cached_percent() const {
    return bytes == 0 ? 100
                      : 100.0 * static_cast<double>(cached_bytes) / static_cast<double>(bytes);
  }
  Cell codec_cell() const {
    if (codecs.empty()) return {};
    std::vector<std::string> names;
    for (const auto& [name, stored] : codecs) names.push_back(name);
    return names;
  }
};

// Extents never span two tensors, so each belongs to one of them, or to the header.
Result<std::vector<Holding>> holdings_by_tensor(const ModelFile& file, const Layout& layout) {
  std::vector<Holding> holdings(layout.tensors.size());
  size_t tensor = 0;
  CAKE_TRY(file.each_extent([&](const KnownExtent& known) -> Status {
    while (tensor < layout.tensors.size() &&
           layout.tensors[tensor].range.end() <= known.extent.offset)
      tensor++;
    if (tensor < layout.tensors.size() &&
        known.extent.offset >= layout.tensors[tensor].range.offset)
      holdings[tensor].add(known);
    return {};
  }));
  return holdings;
}

Result<Holding> holding_of(const ModelFile& file) {
  Holding holding;
  // A file that was never read has no cut yet, and looking at it must not fetch it.
  if (file.content())
    CAKE_TRY(file.each_extent([&](const KnownExtent& known) -> Status {
      holding.add(known);
      return {};
    }));
  return holding;
}

struct DtypeSum {
  uint64_t tensors = 0, elements = 0, bytes = 0;
};
std::map<std::string, DtypeSum> dtypes_of(const Layout& layout) {
  std::map<std::string, DtypeSum> sums;
  for (const Tensor& tensor : layout.tensors) {
    DtypeSum& sum = sums[tensor.dtype_name];
    sum.tensors++;
    sum.elements = checked_add(sum.elements, element_count(tensor.shape)).value_or(UINT64_MAX);
    sum.bytes += tensor.range.length;
  }
  return sums;
}

// --- inspect ---

constexpr const char* kNoHeader = "no file here has a header that cake can read";

struct InspectArguments {
  std::string word;
  bool tensors = false, header = false;
};

// One document: the header of a file, or an array of those of several.
Status print_json_headers(Context& context, const std::vector<ModelFile>& files) {
  using Json = nlohmann::ordered_json;
  Json all = Json::array();
  for (const ModelFile& file : files) {
    const std::optional<Layout> layout = CAKE_TRY(file.layout());
    if (!layout) continue;
    const Buffer head = CAKE_TRY(file.read({0, layout->header_bytes}));
    const std::string_view text = as_text(ByteSpan(head).subspan(std::min<size_t>(8, head.size())));
    Json header = Json::parse(text, nullptr, false);
    if (header.is_discarded()) return Error{Errc::corrupt, cat(file.path(), ": no JSON")};
    all.push_back({{"file", file.path()}, {"header", std::move(header)}});
  }
  if (all.empty()) return Error{Errc::unsupported, kNoHeader};
  const Json& shown = files.size() == 1 ? all.front()["header"] : all;
  // As Facts and tables are printed: names may hold any bytes.
  context.out << shown.dump(2, ' ', true, Json::error_handler_t::replace) << '\n';
  return {};
}

Status print_header(Context& context, const std::vector<ModelFile>& files) {
  if (context.format == Format::json) return print_json_headers(context, files);
  bool has_any = false;
  for (const ModelFile& file : files) {
    const std::optional<Layout> layout = CAKE_TRY(file.layout());
    if (!layout) continue;
    has_any = true;
    const Buffer head = CAKE_TRY(file.read({0, layout->header_bytes}));
    // Behind the length, as the file has it.
    context.out << as_text(ByteSpan(head).subspan(std::min<size_t>(8, head.size()))) << '\n';
  }
  if (!has_any) return Error{Errc::unsupported, kNoHeader};
  return {};
}

Status print_tensors(Context& context, const std::vector<ModelFile>& files) {
  Table table({{"TENSOR"},
               {"DTYPE"},
               {"SHAPE"},
               {"BYTES", true},
               {"OFFSET", true},
               {"CACHED%", true},
               {"STORED", true},
               {"CODEC"},
               {"FILE"},
               {"HASH"}});
  for (const ModelFile& file : files) {
    const std::optional<Layout> layout = CAKE_TRY(file.layout());
    if (!layout) continue;
    const std::vector<Holding> holdings = CAKE_TRY(holdings_by_tensor(file, *layout));
    for (size_t i = 0; i < layout->tensors.size(); i++) {
      const Tensor& tensor = layout->tensors[i];
      const Holding& held = holdings[i];
      const bool has_hash = file.content() && held.knows_all;
      table.add({tensor.name, tensor.dtype_name, shape_text(tensor.shape),
                 Bytes{tensor.range.length}, tensor.range.offset,
                 file.content() ? Cell(Percent{held.cached_percent()}) : Cell(),
                 file.content() ? Cell(Bytes{held.stored_bytes}) : Cell(), held.codec_cell(),
                 file.path(), has_hash ? Cell(tensor_hash(tensor, held.digests).hex()) : Cell()});
    }
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return {};
}

Status print_files(Context& context, const std::vector<ModelFile>& files) {
  Table table({{"FILE"},
               {"SIZE", true},
               {"FORMAT"},
               {"TENSORS", true},
               {"PARAMETERS", true},
               {"DTYPES"},
               {"CACHED%", true},
               {"STORED", true},
               {"CODEC"}});
  for (const ModelFile& file : files) {
    const std::optional<Layout> layout = CAKE_TRY(file.layout());
    const bool is_cut = wanted_cutter(file.path()) == Cutter::safetensors ||
                        (file.content() && CAKE_TRY(file.is_cut()));
    const Holding held = is_cut ? CAKE_TRY(holding_of(file)) : Holding{.bytes = file.bytes()};
    Cell dtypes, tensors, parameters;
    if (layout) {
      std::vector<std::string> names;
      uint64_t elements = 0;
      for (const auto& [name, sum] : dtypes_of(*layout)) {
        names.push_back(name);
        elements = checked_add(elements, sum.elements).value_or(UINT64_MAX);
      }
      dtypes = names;
      tensors = static_cast<uint64_t>(layout->tensors.size());
      parameters = elements;
    }
    table.add({file.path(), Bytes{file.bytes()}, layout ? "safetensors" : "bytes", tensors,
               parameters, dtypes, file.content() ? Cell(Percent{held.cached_percent()}) : Cell(),
               file.content() ? Cell(Bytes{held.stored_bytes}) : Cell(), held.codec_cell()});
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return {};
}

Status print_file(Context& context, const ModelFile& file) {
  const std::optional<Layout> layout = CAKE_TRY(file.layout());
  Facts facts;
  facts.add("file", file.path());
  facts.add("size", Bytes{file.bytes()});
  facts.add("format", layout ? "safetensors" : "bytes");
  if (layout) {
    facts.add("header_bytes", layout->header_bytes);
    facts.add("tensors", static_cast<uint64_t>(layout->tensors.size()));
    uint64_t elements = 0;
    std::vector<std::string> texts;
    for (const auto& [name, sum] : dtypes_of(*layout)) {
      elements = checked_add(elements, sum.elements).value_or(UINT64_MAX);
      texts.push_back(cat(name, ":", sum.tensors));
    }
    facts.add("parameters", elements);
    facts.add("dtypes", texts);
    std::vector<std::string> metadata;
    for (const auto& [key, value] : layout->metadata) metadata.push_back(cat(key, "=", value));
    facts.add("metadata", metadata);
  }
  if (const std::optional<ContentRow>& content = file.content()) {
    const bool is_cut = layout || CAKE_TRY(file.is_cut());
    const Holding held = is_cut ? CAKE_TRY(holding_of(file)) : Holding{.bytes = file.bytes()};
    facts.add("sha256", content->ids.sha256.empty() ? Cell() : Cell(content->ids.sha256));
    facts.add("git_oid", content->ids.git_oid.empty() ? Cell() : Cell(content->ids.git_oid));
    facts.add("xet", content->ids.xet.empty() ? Cell() : Cell(content->ids.xet));
    facts.add("verified", content->verified);
    facts.add("cached", Bytes{held.cached_bytes});
    facts.add("stored", Bytes{held.stored_bytes});
    facts.add("codec", held.codec_cell());
    facts.add("hash", held.knows_all && is_cut ? Cell(file_hash(file.bytes(), held.digests).hex())
                                               : Cell());
  }
  facts.print(context.format, context.out);
  return {};
}

int run_inspect(Context& context, const InspectArguments& arguments) {
  ModelFiles sources(context.config);
  const std::vector<ModelFile> files = CAKE_TRY_RUN(context, sources.open(arguments.word));
  if (arguments.header)
    CAKE_TRY_RUN(context, print_header(context, files));
  else if (arguments.tensors)
    CAKE_TRY_RUN(context, print_tensors(context, files));
  else if (files.size() == 1)
    CAKE_TRY_RUN(context, print_file(context, files.front()));
  else
    CAKE_TRY_RUN(context, print_files(context, files));
  return kExitOk;
}

// --- hash ---

struct HashArguments {
  std::string word, scheme = "cake-v0";
  bool tensors = false;
};

Result<std::vector<Digest>> all_digests(const ModelFile& file) {
  std::vector<Digest> digests;
  const auto add = [&](const KnownExtent& known) -> Status {
    digests.push_back(CAKE_TRY(file.digest(known)));
    return {};
  };
  CAKE_TRY(file.each_extent(add));
  return digests;
}

Status add_tensor_hashes(Table& table, const ModelFile& file) {
  const std::optional<Layout> layout = CAKE_TRY(file.layout());
  if (!layout) return {};
  const Recipe recipe = CAKE_TRY(file.recipe());
  const std::vector<Digest> digests = CAKE_TRY(all_digests(file));
  for (const Tensor& tensor : layout->tensors) {
    std::vector<Digest> own;
    if (tensor.range.length > 0)
      for (uint64_t i = recipe.extents.find(tensor.range.offset);
           i < recipe.extents.count() && recipe.extents.at(i).offset < tensor.range.end(); i++)
        own.push_back(digests[i]);
    table.add({tensor_hash(tensor, own).hex(), tensor.name, tensor.dtype_name,
               shape_text(tensor.shape), Bytes{tensor.range.length}, file.path()});
  }
  return {};
}

int run_hash(Context& context, const HashArguments& arguments) {
  ModelFiles sources(context.config);
  const std::vector<ModelFile> files = CAKE_TRY_RUN(context, sources.open(arguments.word));
  Table table(arguments.tensors ? std::vector<Table::Column>{{"HASH"},
                                                             {"TENSOR"},
                                                             {"DTYPE"},
                                                             {"SHAPE"},
                                                             {"BYTES", true},
                                                             {"FILE"}}
                                : std::vector<Table::Column>{{"HASH"}, {"BYTES", true}, {"FILE"}});
  for (const ModelFile& file : files) {
    if (arguments.tensors) {
      CAKE_TRY_RUN(context, add_tensor_hashes(table, file));
      continue;
    }
    const std::vector<Digest> digests = CAKE_TRY_RUN(context, all_digests(file));
    table.add({file_hash(file.bytes(), digests).hex(), Bytes{file.bytes()}, file.path()});
  }
  table.print(context.format, context.out, context.globals.no_truncate ? 0 : terminal_width());
  return kExitOk;
}

}  // namespace

void add_inspect(CLI::App& app, Run& run) {
  CLI::App* inspect = app.add_subcommand("inspect", "Show what a model file holds");
  const auto inspected = std::make_shared<InspectArguments>();
  inspect->add_option("REF", inspected->word, "Repo, folder or file; or a path with / or ./")
      ->required();
  inspect->add_flag("--tensors", inspected->tensors, "One line a tensor");
  inspect->add_flag("--header", inspected->header, "The header as it stands in the file");
  inspect->callback([inspected, &run] {
    run = [inspected](Context& context) { return run_inspect(context, *inspected); };
  });

  CLI::App* hash = app.add_subcommand("hash", "Print hashes that name files and tensors");
  const auto hashed = std::make_shared<HashArguments>();
  hash->add_option("REF", hashed->word, "Repo, folder or file; or a path with / or ./")->required();
  hash->add_flag("--tensors", hashed->tensors, "One line a tensor");
  hash->add_option("--scheme", hashed->scheme, "cake-v0")
      ->check(CLI::IsMember({"cake-v0"}))
      ->type_name("NAME");
  hash->callback(
      [hashed, &run] { run = [hashed](Context& context) { return run_hash(context, *hashed); }; });
}

}  // namespace cake
