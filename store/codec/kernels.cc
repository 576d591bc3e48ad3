#include "store/codec/kernels.h"

#include "store/base/log.h"
#include "store/codec/kernels_check.h"

namespace cake {

namespace {

const CodecKernels& choose_kernels() {
  std::vector<const CodecKernels*> all = all_kernels();
  for (; all.size() > 1; all.pop_back()) {
    const std::optional<std::string_view> wrong = find_wrong_kernel(*all.back());
    if (!wrong) break;
    log_warn(cat("codec: not using the ", all.back()->name, " kernels: their ", *wrong,
                 " fails its self-check on this processor"));
  }
  return *all.back();
}

}  // namespace

const CodecKernels& best_kernels() {
  static const CodecKernels& best = choose_kernels();
  return best;
}

std::vector<const CodecKernels*> all_kernels() {
  std::vector<const CodecKernels*> all = {&scalar_kernels()};
  if (const CodecKernels* kernels = neon_kernels()) all.push_back(kernels);
  if (const CodecKernels* kernels = avx2_kernels()) all.push_back(kernels);
  if (const CodecKernels* kernels = avx512_kernels()) all.push_back(kernels);
  return all;
}

}  // namespace cake
