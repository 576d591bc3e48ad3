// Sets of kernels for tests: those that this machine runs, and the AVX-512 ones on an emulation.
#pragma once

#include <vector>

#include "store/codec/kernels.h"

namespace cake {

// store/codec's AVX-512 sources on emulated_avx512.h, which any machine runs, slowly.  What they
// take from a lower set is scalar.
const CodecKernels& emulated_avx512_kernels();

// all_kernels(), then the emulated ones.
std::vector<const CodecKernels*> kernel_sets();

}  // namespace cake
