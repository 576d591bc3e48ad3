// Size and speed of the chunk codecs on samples of weights, beside memcpy and zstd, in one run.
//
//   codec_bench [--mib=32] [--rounds=5] [--peer=FILE.so] DTYPE:FILE...    DTYPE: bf16 f16 f32 fp8
//   u8
//
// A sample is the tensors' bytes without a header; whole chunks of 1 MiB of its beginning are used.
// Every codec takes every chunk once a round, and each chunk is compared in the first round;
// figures are medians.  What is encoded was copied just before, so caches have it, as they have a
// chunk that was hashed; what is decoded comes from memory, as from the disk.  Encoders answer
// memory of their own.  One thread, then (float_planes only) one a core.  A peer is a library with
//   void* peer_compress(void* in, size_t n, int dtype, size_t* size)   (may change its input)
//   void* peer_decompress(const void* in, size_t size, int dtype, size_t n)
// that answer memory for free(); dtype counts as above.
#include <dlfcn.h>
#include <malloc.h>
#include <time.h>
#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "store/codec/float_planes.h"

namespace {

using namespace cake;

// Both answer bytes that are in the buffer given, or memory of their own until the next call.
// Buffers have room for a chunk or more; `plain` may change.
struct Subject {
  std::string name;
  std::function<ByteSpan(MutableByteSpan plain, MutableByteSpan out)> encode;
  std::function<const std::byte*(ByteSpan encoded, MutableByteSpan plain)> decode;
  bool is_ours = false;
};

struct Figures {
  double size = 0, encode = 0, decode = 0;  // share of plain; GB/s
};

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "codec_bench: %s\n", why.c_str());
  std::exit(1);
}

Subject planes(EntropyCoder coder, const CodecKernels& kernels, Dtype dtype) {
  const auto codec = std::make_shared<FloatPlanesCodec>(coder, kernels);
  return {cat("planes, ", coder == EntropyCoder::rans ? "rans" : "zstd", ", ", kernels.name),
          [codec, dtype, made = Buffer()](MutableByteSpan plain, MutableByteSpan) mutable {
            auto encoded = codec->encode(plain, dtype);
            if (!encoded) fail(encoded.error().message);
            if (!*encoded) return ByteSpan(plain);
            made = std::move(**encoded);
            return ByteSpan(made);
          },
          [codec](ByteSpan encoded, MutableByteSpan plain) {
            if (encoded.size() == plain.size()) {
              std::copy(encoded.begin(), encoded.end(), plain.begin());
            } else if (const Status status = codec->decode(encoded, plain); !status) {
              fail(status.error().message);
            }
            return plain.data();
          },
          true};
}

Subject zstd(int level) {
  return {cat("zstd -", level),
          [level](MutableByteSpan plain, MutableByteSpan out) {
            return ByteSpan(out.first(
                ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), level)));
          },
          [](ByteSpan encoded, MutableByteSpan plain) {
            ZSTD_decompress(plain.data(), plain.size(), encoded.data(), encoded.size());
            return plain.data();
          }};
}

Subject copying() {
  return {"memcpy",
          [](MutableByteSpan plain, MutableByteSpan out) {
            std::copy(plain.begin(), plain.end(), out.begin());
            return ByteSpan(out.first(plain.size()));
          },
          [](ByteSpan encoded, MutableByteSpan plain) {
            std::copy(encoded.begin(), encoded.end(), plain.begin());
            return plain.data();
          }};
}

Subject peer(const std::string& file, int dtype) {
  void* const library = dlopen(file.c_str(), RTLD_NOW);
  if (!library) fail(dlerror());
  using Compress = void* (*)(void*, size_t, int, size_t*);
  using Decompress = void* (*)(const void*, size_t, int, size_t);
  const auto compress = reinterpret_cast<Compress>(dlsym(library, "peer_compress"));
  const auto decompress = reinterpret_cast<Decompress>(dlsym(library, "peer_decompress"));
  if (!compress || !decompress) fail(file + " lacks peer_compress or peer_decompress");
  return {"peer",
          [=, made = std::shared_ptr<void>()](MutableByteSpan plain, MutableByteSpan) mutable {
            size_t size = 0;
            made.reset(compress(plain.data(), plain.size(), dtype, &size), std::free);
            return ByteSpan(static_cast<const std::byte*>(made.get()), size);
          },
          [=, made = std::shared_ptr<void>()](ByteSpan encoded, MutableByteSpan plain) mutable {
            made.reset(decompress(encoded.data(), encoded.size(), dtype, plain.size()), std::free);
            return static_cast<const std::byte*>(made.get());
          }};
}

// Time that this thread has run: other work on the machine then counts little.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Bench {
  size_t mib = 32;
  size_t rounds = 5;
  std::string peer_file;
  std::map<std::string, std::map<std::string, std::vector<Figures>>> by_dtype;

  void run(const std::string& dtype_name, const std::string& file);
  void print_means() const;
};

constexpr const char* kDtypeNames[] = {"bf16", "f16", "f32", "fp8", "u8"};
constexpr Dtype kDtypes[] = {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f8_e4m3, Dtype::u8};

// `threads` decode all chunks at the same time, `rounds` times; the sum of their GB/s.
double decode_together(const Subject& subject, const std::vector<Buffer>& encoded, size_t threads,
                       size_t rounds) {
  std::vector<double> sums;
  for (size_t round = 0; round < rounds; round++) {
    std::vector<double> seconds(threads);
    std::vector<std::thread> workers;
    for (double& mine : seconds)
      workers.emplace_back([&] {
        Buffer plain(kMiB);
        const double start = thread_seconds();
        for (const Buffer& chunk : encoded) subject.decode(chunk, plain);
        mine = thread_seconds() - start;
      });
    for (std::thread& worker : workers) worker.join();
    double sum = 0;
    for (const double mine : seconds)
      sum += static_cast<double>(encoded.size() * kMiB) / mine / 1e9;
    sums.push_back(sum);
  }
  return median(sums);
}

void Bench::run(const std::string& dtype_name, const std::string& file) {
  const auto* const found = std::find(std::begin(kDtypeNames), std::end(kDtypeNames), dtype_name);
  if (found == std::end(kDtypeNames)) fail("unknown dtype " + dtype_name);
  const auto number = static_cast<int>(found - std::begin(kDtypeNames));
  const Dtype dtype = kDtypes[number];
  std::ifstream stream(file, std::ios::binary);
  Buffer sample(mib * kMiB);
  stream.read(reinterpret_cast<char*>(sample.data()), static_cast<std::streamsize>(sample.size()));
  const size_t chunks = static_cast<size_t>(stream.gcount()) / kMiB;
  if (chunks == 0) fail(file + " is shorter than a chunk");
  const size_t bytes = chunks * kMiB;

  std::vector<Subject> subjects = {copying(), zstd(1), zstd(3),
                                   planes(EntropyCoder::zstd, best_kernels(), dtype),
                                   planes(EntropyCoder::rans, scalar_kernels(), dtype)};
  if (&best_kernels() != &scalar_kernels())
    subjects.push_back(planes(EntropyCoder::rans, best_kernels(), dtype));
  if (!peer_file.empty()) subjects.push_back(peer(peer_file, number));
  std::vector<Figures> figures(subjects.size());
  std::vector<std::vector<double>> encode(subjects.size()), decode(subjects.size());
  Buffer input(kMiB), out(2 * kMiB), plain(kMiB);
  std::vector<std::vector<Buffer>> encoded(subjects.size(), std::vector<Buffer>(chunks));
  for (size_t round = 0; round < rounds; round++) {
    for (size_t s = 0; s < subjects.size(); s++) {
      double encode_seconds = 0, decode_seconds = 0;
      for (size_t i = 0; i < chunks; i++) {
        std::copy_n(&sample[i * kMiB], kMiB, input.begin());
        const double start = thread_seconds();
        const ByteSpan made = subjects[s].encode(input, out);
        encode_seconds += thread_seconds() - start;
        if (round == 0) {
          encoded[s][i] = to_buffer(made);
          figures[s].size += static_cast<double>(made.size()) / static_cast<double>(bytes);
        }
      }
      for (size_t i = 0; i < chunks; i++) {
        const double start = thread_seconds();
        const std::byte* const decoded = subjects[s].decode(encoded[s][i], plain);
        decode_seconds += thread_seconds() - start;
        if (round == 0 &&
            !std::equal(decoded, decoded + kMiB, sample.begin() + static_cast<ptrdiff_t>(i * kMiB)))
          fail(subjects[s].name + " does not give back " + file);
      }
      encode[s].push_back(encode_seconds);
      decode[s].push_back(decode_seconds);
    }
  }
  const size_t cores = std::max(1U, std::thread::hardware_concurrency());
  std::printf("\n%s %s, %zu MiB\n%-24s %8s %10s %10s %12s\n", dtype_name.c_str(),
              file.substr(file.rfind('/') + 1).c_str(), chunks, "", "size %", "enc GB/s",
              "dec GB/s", cat("dec x", cores).c_str());
  for (size_t s = 0; s < subjects.size(); s++) {
    figures[s].encode = static_cast<double>(bytes) / median(encode[s]) / 1e9;
    figures[s].decode = static_cast<double>(bytes) / median(decode[s]) / 1e9;
    std::printf("%-24s %8.2f %10.2f %10.2f", subjects[s].name.c_str(), 100 * figures[s].size,
                figures[s].encode, figures[s].decode);
    if (subjects[s].is_ours)
      std::printf(" %12.2f", decode_together(subjects[s], encoded[s], cores, rounds));
    std::printf("\n");
    by_dtype[dtype_name][subjects[s].name].push_back(figures[s]);
  }
  std::fflush(stdout);
}

// Geometric means over a dtype's samples.
void Bench::print_means() const {
  for (const auto& [dtype, subjects] : by_dtype) {
    std::printf("\nmeans of %s\n", dtype.c_str());
    for (const auto& [name, all] : subjects) {
      Figures logs;
      for (const Figures& figures : all) {
        logs.size += std::log(figures.size) / static_cast<double>(all.size());
        logs.encode += std::log(figures.encode) / static_cast<double>(all.size());
        logs.decode += std::log(figures.decode) / static_cast<double>(all.size());
      }
      std::printf("%-24s %8.2f %10.2f %10.2f\n", name.c_str(), 100 * std::exp(logs.size),
                  std::exp(logs.encode), std::exp(logs.decode));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Buffers come from the heap again and again, as in a busy daemon.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  Bench bench;
  bool has_run = false;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    const size_t colon = argument.find(':');
    if (argument.starts_with("--mib=")) {
      bench.mib = std::strtoull(argv[i] + 6, nullptr, 10);
    } else if (argument.starts_with("--rounds=")) {
      bench.rounds = std::max(1ULL, std::strtoull(argv[i] + 9, nullptr, 10));
    } else if (argument.starts_with("--peer=")) {
      bench.peer_file = argument.substr(7);
    } else if (colon != std::string::npos) {
      bench.run(argument.substr(0, colon), argument.substr(colon + 1));
      has_run = true;
    } else {
      has_run = false;
      break;
    }
  }
  if (!has_run) {
    std::fprintf(stderr, "usage: %s [--mib=N] [--rounds=N] [--peer=FILE.so] DTYPE:FILE...\n",
                 argv[0]);
    return 2;
  }
  bench.print_means();
  return 0;
}
