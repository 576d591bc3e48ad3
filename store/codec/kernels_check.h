// Whether kernels do what the scalar ones do, asked before they are trusted with data: vector code
// meets processors, compilers and emulators that its authors never had.
#pragma once

#include <optional>
#include <string_view>

#include "store/codec/kernels.h"

namespace cake {

// Runs every function of the set and of scalar_kernels() on the same small input (always the same
// one) and names the first that differs, or writes where it must not; null when none does.  Takes
// well under 2 ms.
std::optional<std::string_view> find_wrong_kernel(const CodecKernels& kernels);

}  // namespace cake
