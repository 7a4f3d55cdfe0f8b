#!/bin/sh
# Two machines: two network namespaces joined by a veth pair run one job of four processes through torchrun, two a
# namespace, to the losses of one process. Leaves with 77 (skipped) where that is not possible here.
#   two_machines.sh SINEW     the program under test
set -eu

sinew=$1
skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "network namespaces want root"
command -v ip >/dev/null || skip "no ip (package iproute2)"
command -v torchrun >/dev/null || skip "no torchrun (package python3-torch)"
"$sinew" train --help | grep -q -- --ranks || skip "this sinew cannot start several processes"

tag=$$
a=sinew-a-$tag b=sinew-b-$tag
dir=$(mktemp -d)
finish() {
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT INT TERM

ip netns add "$a" 2>/dev/null || skip "network namespaces are not allowed here"
ip netns add "$b"
ip link add "va$tag" netns "$a" type veth peer name "vb$tag" netns "$b" || skip "veth pairs are not allowed here"
ip -n "$a" addr add 10.213.77.1/24 dev "va$tag"
ip -n "$b" addr add 10.213.77.2/24 dev "vb$tag"
for side in "$a va$tag" "$b vb$tag"; do
  set -- $side
  ip -n "$1" link set lo up
  ip -n "$1" link set "$2" up
done

# A corpus, a tokenizer, a model.
i=0
while [ $i -lt 400 ]; do
  echo "the wind sings of stone $i and the river rises over $((i * 7 % 31)) hills"
  i=$((i + 1))
done >"$dir/text.txt"
"$sinew" tokenizer train "$dir/text.txt" --vocab-size 300 --out "$dir/tokenizer.json" >"$dir/log" 2>&1 || {
  cat "$dir/log"; exit 1; }
"$sinew" data "$dir/text.txt" --tokenizer "$dir/tokenizer.json" --out "$dir/data" --val-fraction 0.1 \
  >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
cat >"$dir/run.toml" <<EOF
[model]
config = "$dir/model.json"
[data]
path = ["$dir/data"]
sequence = 32
[train]
steps = 6
batch = 8
micro_batch = 4
device = "cpu"
[optimizer]
lr = 0.01
[log]
every = 1
tensorboard = false
[eval]
batches = 1
EOF
cat >"$dir/model.json" <<EOF
{"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": 320, "hidden_size": 32,
 "intermediate_size": 64, "moe_intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
 "num_key_value_heads": 2, "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2,
 "moe_layer_freq": 1, "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": null, "qk_rope_head_dim": 8,
 "qk_nope_head_dim": 8, "v_head_dim": 8, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
 "norm_topk_prob": false, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": true,
 "aux_loss_alpha": 0.01, "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
 "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false, "attention_dropout": 0.0,
 "tie_word_embeddings": false, "initializer_range": 0.05, "torch_dtype": "float32"}
EOF

export OMP_NUM_THREADS=1
"$sinew" train --config "$dir/run.toml" --out "$dir/one" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }

# -r and -t are named because torchrun 1.13 fails on their defaults under Python 3.11.
machine() {  # namespace, node number, log
  ip netns exec "$1" torchrun --no_python -r 1 -t 2 --log_dir "$dir/torchrun" --nnodes 2 --nproc_per_node 2 \
    --node_rank "$2" \
    --master_addr 10.213.77.1 --master_port 29611 \
    "$sinew" train --config "$dir/run.toml" --set layout.pipeline=2 --set layout.tensor=2 --out "$dir/two" \
    >"$3" 2>&1
}
machine "$b" 1 "$dir/log.b" &
other=$!
machine "$a" 0 "$dir/log.a" || { cat "$dir/log.a" "$dir/log.b"; exit 1; }
wait $other || { cat "$dir/log.b"; exit 1; }

losses() { sed -n 's/.*"step":\([0-9]*\),.*"loss":\([-0-9.e+]*\).*/\1 \2/p' "$1/metrics.jsonl"; }
losses "$dir/one" >"$dir/one.txt"
losses "$dir/two" >"$dir/two.txt"
[ "$(wc -l <"$dir/one.txt")" -ge 6 ] || { echo "no losses"; cat "$dir/one/metrics.jsonl"; exit 1; }
paste -d ' ' "$dir/one.txt" "$dir/two.txt" | awk '
  { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d
    if ($1 != $3 || d > 1e-5) { print "step " $1 ": " $2 " and " $4; bad = 1 } }
  END { print NR " steps, the losses of one process within " worst; exit bad }'
