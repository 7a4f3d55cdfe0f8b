#!/usr/bin/env bash
# The tables of docs/quantization.md: one model, quantized to every format by rounding and by GPTQ, and by the
# solver to the sizes of those formats and to given bits per weight. One JSON line a file, then a table.
#   bench/quantize_quality.sh MODEL CALIBRATION_TEXT EVAL_TEXT OUT_DIR [BITS..]
set -euo pipefail
if [ $# -lt 4 ]; then
  sed -n '2,4s/^# \?//p' "$0" >&2
  exit 2
fi
sinew=${SINEW:-$(dirname "$0")/../build/release/sinew}
model=$1 text=$2 eval_text=$3 out=$4
shift 4
bits=("$@")
[ ${#bits[@]} -gt 0 ] || bits=(3.5 4.5)
mkdir -p "$out"

field() { grep -o "\"$1\": [-0-9.e+]*" "$2" | head -1 | sed 's/.*: //'; }

# one NAME METHOD FLAGS..: a file, its report, a line of the table.
one() {
  local name=$1 method=$2 report=$out/$1-$2.json
  shift 2
  [ -s "$report" ] ||
    "$sinew" quantize "$model" "$out/model.gguf" --force --calibrate "$text" --eval-text "$eval_text" \
      --tokens 8192 --eval-tokens 16384 --statistics "$out/statistics" --method "$method" --report "$report" "$@" >/dev/null 2>"$out/log" ||
    { printf '| %s | %s | %s |\n' "$name" "$method" "$(tail -n 1 "$out/log")"; return; }
  printf '| %s | %s | %.3f | %+.3f %% | %.5f | %.2f %% |\n' "$name" "$method" "$(field bits_per_weight "$report")" \
    "$(awk "BEGIN { print 100 * $(field perplexity_loss "$report") }")" "$(field kl "$report")" \
    "$(awk "BEGIN { print 100 * $(field top1_agreement "$report") }")"
}

printf '| formats | method | bits per weight | perplexity | KL, nats | same top token |\n|---|---|---|---|---|---|\n'
for type in Q2_K Q3_K Q4_K Q6_K; do
  one "$type" round --type "$type"
  one "$type" gptq --type "$type"
  # The solver gets the size of the file with one format.
  one "solver at $type" gptq --size "$(field file_bytes "$out/$type-gptq.json")"
done
for width in "${bits[@]}"; do
  one "solver, $width bits" gptq --bits "$width"
done
