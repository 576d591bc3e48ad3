// Runs a fuzz target over its corpus where there is no libFuzzer, so that every
// compiler and sanitizer sees the inputs that once mattered.
//
//   X_fuzz [--mutations=N] DIR|FILE…
//
// Each file is run as it is, then N times truncated or with bytes changed; the changes
// are seeded by the file's name, so a failure repeats.  A corpus without files fails.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

namespace stdfs = std::filesystem;
using Input = std::vector<uint8_t>;

// Files at or below `path`, sorted, so that runs are alike on every machine.
std::vector<stdfs::path> files_of(const stdfs::path& path) {
  std::vector<stdfs::path> files;
  if (stdfs::is_regular_file(path)) files.push_back(path);
  if (stdfs::is_directory(path)) {
    for (const auto& entry : stdfs::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

Input mutated(const Input& original, std::mt19937_64& random) {
  Input input = original;
  if (random() % 4 == 0) input.resize(random() % (input.size() + 1));
  if (input.empty()) return input;
  for (uint64_t change = random() % 4; change-- > 0;) {
    input[random() % input.size()] = static_cast<uint8_t>(random());
  }
  return input;
}

// A copy of its exact size: reading one byte past the end is then seen by the sanitizer.
void run_one(const Input& input) {
  const Input exact(input.begin(), input.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

bool replay(const stdfs::path& file, uint64_t mutations) {
  std::ifstream stream(file, std::ios::binary);
  const Input original{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad() || !stream.is_open()) {
    std::fprintf(stderr, "cannot read %s\n", file.c_str());
    return false;
  }
  std::fprintf(stderr, "%s (%zu bytes)\n", file.c_str(), original.size());
  run_one(original);
  std::mt19937_64 random(std::hash<std::string>{}(file.filename().string()));
  for (uint64_t i = 0; i < mutations; ++i) run_one(mutated(original, random));
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view kMutations = "--mutations=";
  uint64_t mutations = 0;
  size_t files = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, kMutations.size()) == kMutations) {
      mutations = std::strtoull(argv[i] + kMutations.size(), nullptr, 10);
      continue;
    }
    for (const stdfs::path& file : files_of(argument)) {
      if (!replay(file, mutations)) return 1;
      ++files;
    }
  }
  std::fprintf(stderr, "%zu files replayed, %llu mutations each\n", files,
               static_cast<unsigned long long>(mutations));
  if (files == 0) std::fprintf(stderr, "no corpus files found in the arguments\n");
  return files > 0 ? 0 : 1;
}
