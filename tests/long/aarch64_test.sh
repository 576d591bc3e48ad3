#!/usr/bin/env bash
# The codec's tests for AArch64, cross-compiled and run by qemu: NEON against scalar kernels.
#
# Whatever machine this runs on, so that the kernels that it cannot run are tested too.  libzstd for
# arm64 is taken from the system or the package archive; without it only the kernels' own tests run.
# Exit status 77 when the cross compiler, qemu or GoogleTest's sources are missing.
set -euo pipefail
cd "${CAKE_SOURCE_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"

skip() {
  echo "aarch64_test: skipped: $1"
  exit 77
}
cxx=aarch64-linux-gnu-g++
command -v $cxx >/dev/null || skip "no cross compiler (g++-aarch64-linux-gnu)"
command -v qemu-aarch64 >/dev/null || skip "no emulator (qemu-user)"
gtest=/usr/src/googletest/googletest
[[ -e $gtest/src/gtest-all.cc ]] || skip "no sources of GoogleTest (googletest)"
# What the cross compiler itself was installed for.
run=(timeout 1500 qemu-aarch64 -L /usr/aarch64-linux-gnu)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- libzstd ------------------------------------------------------------------

# Prints the folder that has lib/ and include/, from the package archive if need be.
find_zstd() {
  if [[ -e /usr/lib/aarch64-linux-gnu/libzstd.a && -e /usr/include/zstd.h ]]; then
    echo /usr
    return
  fi
  command -v apt-get >/dev/null || return 1
  # Lists of packages of its own: the system's are for this machine's processor.
  local apt=$work/apt options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64)
  mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,debs}
  : >"$apt/status"
  options+=(-o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o APT::Sandbox::User=)
  (
    cd "$apt/debs"
    timeout 300 apt-get -q "${options[@]}" update
    timeout 300 apt-get -q "${options[@]}" download libzstd-dev
  ) >"$work/apt.log" 2>&1 || return 1
  dpkg-deb -x "$apt"/debs/libzstd-dev_*.deb "$work/root"
  echo "$work/root/usr"
}

# Headers that are the same for every processor, which not all below /usr/include are.
mkdir "$work/include"
ln -s /usr/include/gtest "$work/include/gtest"

# What cannot be had here, spdlog, is behind this one function.
cat >"$work/log_line.cc" <<'CODE'
#include <iostream>
#include "store/base/log.h"
void cake::log_line(LogLevel, std::string_view text) { std::cerr << text << "\n"; }
CODE
support=("$work/log_line.cc" tests/support/kernel_sets.cc)
tests=(tests/store/codec/kernels{,_check}_test.cc "$gtest"/src/gtest-all.cc "$gtest"/src/gtest_main.cc)
fuzz=()
link=()
if zstd=$(find_zstd); then
  ln -s "$zstd"/include/zstd*.h "$work/include"
  link=("$zstd/lib/aarch64-linux-gnu/libzstd.a")
  sources=(store/base/{bytes,result}.cc store/codec/*.cc)
  tests+=(tests/store/codec/{codec,float_planes}_test.cc tests/support/pattern.cc)
  fuzz=(tests/fuzz/{rans,float_planes}_fuzz.cc tests/fuzz/replay_main.cc)
else
  sources=(store/base/{bytes,result}.cc store/codec/{kernels,rans}*.cc)
  echo "aarch64_test: no libzstd for arm64 (libzstd-dev:arm64): kernels only"
fi

# --- Build --------------------------------------------------------------------

flags=(-std=gnu++20 -O2 -g1 -Wall -Wextra -Wshadow -Werror -Wnon-virtual-dtor
  -Wno-missing-field-initializers -Wno-dangling-else -I. -isystem "$work/include")

object_of() { echo "$work/$(basename "$1" .cc).o"; }
# compile SOURCE COMPILER…
compile() {
  local source=$1 own=()
  shift
  [[ $source != "$gtest"/* ]] || own=(-w "-I$gtest")
  "$@" "${flags[@]}" "${own[@]}" -c "$source" -o "$(object_of "$source")"
}
# link_program NAME SOURCE…: of their objects.
link_program() {
  local name=$1 objects=() source
  shift
  for source in "$@"; do objects+=("$(object_of "$source")"); done
  $cxx "${objects[@]}" "${link[@]}" -lpthread -o "$work/$name"
}

sources+=("${support[@]}")
for source in "${sources[@]}" "${tests[@]}" "${fuzz[@]}"; do
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
  compile "$source" $cxx -Wno-restrict &
done
while [[ -n $(jobs -p) ]]; do wait -n; done

# --- Run ----------------------------------------------------------------------

echo "aarch64_test: g++, unit tests"
link_program tests "${sources[@]}" "${tests[@]}"
"${run[@]}" "$work/tests" --gtest_brief=1

if ((${#fuzz[@]})); then
  for name in rans float_planes; do
    echo "aarch64_test: g++, corpus of ${name}_fuzz"
    link_program "$name" "${sources[@]}" "tests/fuzz/${name}_fuzz.cc" tests/fuzz/replay_main.cc
    if ! "${run[@]}" "$work/$name" --mutations=20 "tests/fuzz/corpus/$name" >"$work/log" 2>&1; then
      tail -n 5 "$work/log"
      exit 1
    fi
    tail -n 1 "$work/log"
  done
fi

if command -v clang++ >/dev/null; then
  echo "aarch64_test: clang++, the kernels' tests"
  for source in store/codec/{kernels,rans}_neon.cc; do
    compile "$source" clang++ --target=aarch64-linux-gnu
  done
  link_program tests "${sources[@]}" "${tests[@]}"
  "${run[@]}" "$work/tests" --gtest_brief=1 --gtest_filter='CodecKernels.*:KernelsCheck.*'
fi
