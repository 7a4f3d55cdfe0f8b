#!/usr/bin/env bash
# kernels_on_aarch64.sh SYSROOT OUT: cross-compiles base, kernels and their tests for 64-bit ARM and runs them in QEMU,
# once as a processor with dot products of bytes and once as one without. Debian: g++-aarch64-linux-gnu,
# qemu-user-static. SYSROOT holds the arm64 packages libfmt-dev libfmt9 libspdlog-dev libspdlog1.10 libgtest-dev
# libgmock-dev librapidcheck-dev libxxhash-dev libxxhash0 liburing-dev liburing2 (`apt-get download PACKAGE:arm64` after
# `dpkg --add-architecture arm64`, then `dpkg -x PACKAGE.deb SYSROOT`).
set -euo pipefail
root=$(realpath "$1") out=$(realpath -m "$2")
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
compile=(aarch64-linux-gnu-g++ -std=c++20 -DNDEBUG -Wall -Wextra -Wshadow -Wno-restrict -Wno-array-bounds
  -Wno-stringop-overflow -Wno-maybe-uninitialized -Werror -DFMT_SHARED -DSPDLOG_COMPILED_LIB -DSPDLOG_FMT_EXTERNAL
  -DSPDLOG_SHARED_LIB "-DSINEW_SOURCE_DIR=\"$source\"" '-DSINEW_PROGRAM="none"' "-I$source/src" "-I$source/tests"
  -isystem "$root/usr/include" -idirafter /usr/include)
objects=()
for file in "$source"/src/base/*.cpp "$source"/src/kernels/*.cpp "$source"/tests/support/*.cpp "$source"/tests/kernels/*_test.cpp; do
  name=${file#"$source"/}
  object=$out/${name//\//_}.o
  objects+=("$object")
  level=(-O3)
  case $name in
    tests/*) level=(-O1) ;;
    *_dotprod.cpp) level=(-O3 -march=armv8.2-a+dotprod) ;;
  esac
  echo "$name"
  "${compile[@]}" "${level[@]}" -c "$file" -o "$object"
done
aarch64-linux-gnu-g++ "${objects[@]}" -o "$out/test_kernels" -L"$root/usr/lib/aarch64-linux-gnu" \
  -Wl,-rpath-link,"$root/usr/lib/aarch64-linux-gnu" -lgtest_main -lgmock -lgtest -lrapidcheck -lfmt -lspdlog -lxxhash -luring
for processor in max cortex-a72; do
  echo "as $processor:"
  qemu-aarch64-static -cpu "$processor" -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$root/usr/lib/aarch64-linux-gnu" \
    "$out/test_kernels" --gtest_brief=1
done
