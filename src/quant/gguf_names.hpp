// How the tensors of a public checkpoint stand in a GGUF file, as llama.cpp names and lays them out
// (gguf-py's tensor_mapping.py and conversion/*.py) for llama (Mixtral too), qwen3moe and deepseek2.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/model_config.hpp"
#include "quant/row_source.hpp"

namespace sinew {

enum class GgufLayout {
  plain,
  rope_pairs,  // llama: rows of each head of q and k go from halves to adjacent pairs, which its rotation
               // takes
  key_b,       // deepseek2: the key half of kv_b_proj, transposed head by head: {nope, kv_lora, heads}
  value_b,     // deepseek2: its value half: {kv_lora, v, heads}
  experts,     // one matrix an expert, stacked: {in, out, experts}
};

struct GgufSpec {
  std::string name;                   // "blk.0.attn_q.weight"
  std::vector<std::int64_t> shape{};  // fastest dimension first
  GgufLayout layout = GgufLayout::plain;
  std::vector<TensorSpec> sources{};  // of the public checkpoint; one, or one an expert
  bool fp32 = false;                  // F32 in every file: vectors and the router
};

struct GgufOptions {
  bool joined_kv_b = false;  // deepseek2: attn_kv_b as files before April 2025 had it
  bool split_experts =
      false;         // a tensor for each expert, "blk.3.ffn_down.17.weight", as the first GGUF files of
                     // Mixtral had it: each with a format of its own. llama.cpp no longer reads them.
  bool mtp = false;  // the multi-token-prediction layers too, which llama.cpp does not take for deepseek2
};

// In the order of tensor_specs(config), experts at the place of the first.
std::vector<GgufSpec> gguf_specs(const ModelConfig& config, const GgufOptions& options = {});

// The rows of one GGUF tensor out of those of the public checkpoint; `open` finds a tensor of that.
RowSource gguf_tensor_rows(const GgufSpec& spec, const ModelConfig& config,
                           const std::function<RowSource(const TensorSpec&)>& open);

// The other way: the rows of each tensor of the public checkpoint out of a GGUF file with either layout of
// kv_b.
RowSource hf_tensor_rows(const TensorSpec& spec, const ModelConfig& config, const Gguf& file);

}  // namespace sinew
