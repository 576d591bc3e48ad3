#include "store/codec/kernels.h"

namespace cake {

const CodecKernels& best_kernels() {
  static const CodecKernels& best = *all_kernels().back();
  return best;
}

std::vector<const CodecKernels*> all_kernels() {
  std::vector<const CodecKernels*> all = {&scalar_kernels()};
  if (const CodecKernels* kernels = neon_kernels()) all.push_back(kernels);
  if (const CodecKernels* kernels = avx2_kernels()) all.push_back(kernels);
  return all;
}

}  // namespace cake
