#!/bin/sh
# The C library as a user has it: installed under a prefix, found by CMake and by pkg-config, and examples/c built with it
# and run on a tiny model. Leaves with 77 (skipped) where that is not possible here.
#   c_example.sh SOURCE BUILD SINEW DATA     source and build folder, the program, reference data
set -eu

source=$1 build=$2 sinew=$3 data=$4
skip() { echo "skipped: $1"; exit 77; }
command -v cmake >/dev/null || skip "no cmake"
command -v cc >/dev/null || skip "no C compiler"
model=$data/models/stories260K
[ -f "$model/stories260K.bin" ] || skip "reference data not here (set SINEW_TEST_DATA)"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
cmake --build "$build" --target sinew_c >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
cmake --install "$build" --component capi --prefix "$dir/usr" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
"$sinew" convert "$model/stories260K.bin" "$dir/model" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }

# Temperature 0.8, so no text to compare with: it must be text, the same from both programs.
check() {
  "$1" "$dir/model" "Once upon a time" >"$2" || { echo "$1: exit $?"; exit 1; }
  [ "$(wc -c <"$2")" -gt 40 ] || { echo "$1 wrote little:"; cat "$2"; exit 1; }
  if "$1" "$dir/nothing" x 2>"$dir/error"; then echo "$1: a model that is not there is no error"; exit 1; fi
  grep -q nothing "$dir/error" || { echo "$1 does not name the model:"; cat "$dir/error"; exit 1; }
}
{ cmake -G Ninja -S "$source/examples/c" -B "$dir/example" -DCMAKE_PREFIX_PATH="$dir/usr" &&
  cmake --build "$dir/example"; } >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
check "$dir/example/generate" "$dir/cmake.txt"

if command -v pkg-config >/dev/null; then
  PKG_CONFIG_PATH=$(dirname "$(find "$dir/usr" -name sinew.pc)")
  export PKG_CONFIG_PATH
  cc "$source/examples/c/generate.c" $(pkg-config --cflags --libs sinew) -o "$dir/generate"
  check "$dir/generate" "$dir/pkg-config.txt"
  cmp "$dir/cmake.txt" "$dir/pkg-config.txt"
fi
echo "$(head -c 60 "$dir/cmake.txt") .."
