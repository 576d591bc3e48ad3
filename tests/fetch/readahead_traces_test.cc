// Readahead on what the kernel asks for when models are read (tests/bench/record_traces.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/reading.h"

namespace cake {
namespace {

struct Trace {
  Extents extents;
  uint64_t wanted_bytes = 0;
  std::vector<ByteRange> requests;
};

uint64_t parse_size(const std::string& word) {
  const uint64_t value = std::stoull(word);
  return word.back() == 'K' ? value * kKiB : value;
}

Extents parse_extents(std::istringstream& words) {
  uint64_t first = 0, bytes = 0;
  words >> first;
  Layout layout;
  layout.header_bytes = first;
  uint64_t end = first;
  while (words >> bytes) {
    layout.tensors.push_back({"", Dtype::u8, "U8", {bytes}, {end, bytes}});
    end += bytes;
  }
  return layout.tensors.empty() ? Extents::uniform(first) : Extents::from_layout(layout, end);
}

Trace load(const std::string& name) {
  const char* source = std::getenv("CAKE_SOURCE_DIR");
  std::ifstream file(cat(source == nullptr ? "." : source, "/tests/fetch/traces/", name, ".trace"));
  EXPECT_TRUE(file) << name;
  Trace trace;
  std::string line, word, length, times;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    words >> word;
    if (word == "tensors") {
      trace.extents = parse_extents(words);
    } else if (word == "wanted") {
      words >> trace.wanted_bytes;
    } else {
      words >> length;
      const uint64_t count = words >> times ? std::stoull(times.substr(1)) : 1;
      for (uint64_t i = 0; i < count; i++)
        trace.requests.push_back({parse_size(word) + i * parse_size(length), parse_size(length)});
    }
  }
  return trace;
}

struct Expectation {
  const char* name;
  double most_cost;       // bytes fetched of bytes needed
  double least_hit_rate;  // requests that found their bytes asked for
};
void PrintTo(const Expectation& expectation, std::ostream* out) {
  *out << expectation.name;
}

class ReadaheadTraces : public testing::TestWithParam<Expectation> {};

TEST_P(ReadaheadTraces, FetchesEarlyAndLittleElse) {
  const Trace trace = load(GetParam().name);
  ASSERT_FALSE(trace.requests.empty());
  Reading reading(trace.extents), without(trace.extents, {128 * kMiB, Prefetch::off});
  for (const ByteRange& request : trace.requests) {
    reading.touch(request.offset, request.length);
    without.touch(request.offset, request.length);
  }
  const double cost = reading.cost(without.fetched_bytes());
  EXPECT_LE(cost, GetParam().most_cost);
  EXPECT_GE(reading.hit_rate(), GetParam().least_hit_rate);
  std::cout << GetParam().name << ": " << cost << " of what the kernel asked for, "
            << reading.cost(trace.wanted_bytes) << " of what the reader needs, "
            << reading.hit_rate() << " of the requests found it asked for\n";
}

INSTANTIATE_TEST_SUITE_P(Readers, ReadaheadTraces,
                         testing::Values(Expectation{"safetensors", 1.0, 0.95},          //
                                         Expectation{"safetensors_threads", 1.0, 0.7},   //
                                         Expectation{"safetensors_shuffled", 1.0, 0.3},  //
                                         Expectation{"vllm_prefetch", 1.0, 0.95},        //
                                         Expectation{"runai_streamer", 1.0, 0.8},        //
                                         Expectation{"fastsafetensors", 1.0, 0.7},       //
                                         Expectation{"serverlessllm", 1.0, 0.9},         //
                                         Expectation{"llama_populate", 1.0, 0.95},       //
                                         Expectation{"llama_buffered", 1.0, 0.95},       //
                                         Expectation{"expert_parallel", 1.2, 0.3},       //
                                         Expectation{"fused_experts", 1.4, 0.2},         //
                                         Expectation{"row_slices", 1.3, 0.5},            //
                                         Expectation{"column_slices", 5.0, 0.5}),
                         [](const auto& made) { return std::string(made.param.name); });

// A fault reads 1 MiB around itself, which lies in two extents; where two faults are close, a run
// may be seen.
TEST(ReadaheadTrace, RandomFaultsFetchWhatTheyTouch) {
  const Trace trace = load("random_faults");
  Reading with(trace.extents), without(trace.extents, {128 * kMiB, Prefetch::off});
  for (const ByteRange& request : trace.requests) {
    with.touch(request.offset, request.length);
    without.touch(request.offset, request.length);
  }
  EXPECT_LE(with.cost(without.fetched_bytes()), 1.15);
}

}  // namespace
}  // namespace cake
