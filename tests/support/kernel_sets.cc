#include "tests/support/kernel_sets.h"

#define CAKE_AVX512_EMULATED
#include "tests/support/emulated_avx512.h"
// After the above, which these take for the processor's.
#include "store/codec/kernels_avx512.cc"
#include "store/codec/rans_avx512.cc"

namespace cake {

const CodecKernels& emulated_avx512_kernels() {
  static const CodecKernels kernels = [] {
    CodecKernels made = avx512_emulated::make_kernels(scalar_kernels());
    made.name = "avx512 (emulated)";
    return made;
  }();
  return kernels;
}

std::vector<const CodecKernels*> kernel_sets() {
  std::vector<const CodecKernels*> sets = all_kernels();
  sets.push_back(&emulated_avx512_kernels());
  return sets;
}

}  // namespace cake
