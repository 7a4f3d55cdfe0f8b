#include "quant/gguf_names.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.hpp"

namespace sinew {
namespace {

struct NamePair {
  std::string_view hf, gguf;
};

constexpr std::array kGlobal{
    NamePair{"model.embed_tokens.weight", "token_embd.weight"},
    NamePair{"model.norm.weight", "output_norm.weight"},
    NamePair{"lm_head.weight", "output.weight"},
};

// Within a layer. Suffixes .weight and .bias are the same on both sides.
constexpr std::array kLayer{
    NamePair{"input_layernorm", "attn_norm"},
    NamePair{"post_attention_layernorm", "ffn_norm"},
    NamePair{"self_attn.q_proj", "attn_q"},
    NamePair{"self_attn.k_proj", "attn_k"},
    NamePair{"self_attn.v_proj", "attn_v"},
    NamePair{"self_attn.o_proj", "attn_output"},
    NamePair{"self_attn.q_norm", "attn_q_norm"},
    NamePair{"self_attn.k_norm", "attn_k_norm"},
    NamePair{"self_attn.q_a_proj", "attn_q_a"},
    NamePair{"self_attn.q_a_layernorm", "attn_q_a_norm"},
    NamePair{"self_attn.q_b_proj", "attn_q_b"},
    NamePair{"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    NamePair{"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
    NamePair{"self_attn.kv_b_proj", "attn_kv_b"},
    NamePair{"mlp.gate_proj", "ffn_gate"},
    NamePair{"mlp.up_proj", "ffn_up"},
    NamePair{"mlp.down_proj", "ffn_down"},
    NamePair{"mlp.gate", "ffn_gate_inp"},
    NamePair{"block_sparse_moe.gate", "ffn_gate_inp"},
    NamePair{"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    NamePair{"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    NamePair{"mlp.shared_experts.down_proj", "ffn_down_shexp"},
    NamePair{"enorm", "nextn.enorm"},
    NamePair{"hnorm", "nextn.hnorm"},
    NamePair{"eh_proj", "nextn.eh_proj"},
    NamePair{"shared_head.norm", "nextn.shared_head_norm"},
};

// "model.layers.12.mlp.gate.weight" -> 12 and "mlp.gate.weight"; no layer for the others.
std::pair<std::optional<std::int64_t>, std::string_view> split_layer(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return {std::nullopt, name};
  std::int64_t layer = 0;
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, layer);
  ensure(error == std::errc() && rest != end && *rest == '.', "tensor name '{}'", name);
  return {layer, std::string_view(rest + 1, static_cast<std::size_t>(end - rest - 1))};
}

struct ExpertName {
  std::int64_t expert;
  std::string gguf;  // "ffn_gate_exps.weight"
};

// "mlp.experts.3.gate_proj.weight" -> 3 and its stacked tensor.
std::optional<ExpertName> split_expert(std::string_view name, const ModelConfig& config) {
  const MoeNames names = moe_names(config);
  const std::string prefix = std::string(names.module) + ".experts.";
  if (!name.starts_with(prefix)) return std::nullopt;
  ExpertName expert{};
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + prefix.size(), end, expert.expert);
  ensure(error == std::errc() && rest != end, "tensor name '{}'", name);
  const std::string_view part(rest + 1, static_cast<std::size_t>(end - rest - 1));
  for (const auto& [hf, gguf] : {NamePair{names.gate, "ffn_gate_exps"}, NamePair{names.up, "ffn_up_exps"},
                                 NamePair{names.down, "ffn_down_exps"}}) {
    if (part == std::string(hf) + ".weight") expert.gguf = std::string(gguf) + ".weight";
  }
  ensure(!expert.gguf.empty(), "tensor name '{}'", name);
  return expert;
}

// "blk.3.ffn_gate.17.weight" for expert 17 of "ffn_gate_exps.weight".
std::string split_name(std::int64_t layer, const ExpertName& expert) {
  return fmt::format("blk.{}.{}.{}.weight", layer, expert.gguf.substr(0, expert.gguf.find("_exps")),
                     expert.expert);
}

std::string gguf_name(std::string_view name) {
  const auto [layer, rest] = split_layer(name);
  if (!layer) {
    for (const NamePair& pair : kGlobal) {
      if (pair.hf == name) return std::string(pair.gguf);
    }
  } else {
    if (rest == "mlp.gate.e_score_correction_bias") return fmt::format("blk.{}.exp_probs_b.bias", *layer);
    const std::size_t dot = rest.rfind('.');
    for (const NamePair& pair : kLayer) {
      if (pair.hf == rest.substr(0, dot))
        return fmt::format("blk.{}.{}{}", *layer, pair.gguf, rest.substr(dot));
    }
  }
  ensure(false, "no GGUF name for '{}'", name);
  return {};
}

bool rotates_pairs(const ModelConfig& config) {
  return config.model_type == "llama" || config.model_type == "mixtral";
}

bool is_query_or_key(std::string_view name) {
  return name.find(".self_attn.q_proj.") != std::string_view::npos ||
         name.find(".self_attn.k_proj.") != std::string_view::npos;
}

std::vector<std::int64_t> reversed(const std::vector<std::int64_t>& shape) {
  return {shape.rbegin(), shape.rend()};
}

GgufSpec plain_spec(const TensorSpec& spec, const ModelConfig& config) {
  GgufSpec out{.name = gguf_name(spec.name), .shape = reversed(spec.shape), .sources = {spec}};
  out.fp32 = spec.fp32 || spec.shape.size() == 1 || out.name.ends_with("ffn_gate_inp.weight");
  if (rotates_pairs(config) && is_query_or_key(spec.name)) out.layout = GgufLayout::rope_pairs;
  return out;
}

void add_split_kv_b(const TensorSpec& spec, const ModelConfig& c, std::vector<GgufSpec>& out) {
  const std::int64_t layer = *split_layer(spec.name).first;
  out.push_back({.name = fmt::format("blk.{}.attn_k_b.weight", layer),
                 .shape = {c.qk_nope_head_dim, c.kv_lora_rank, c.num_attention_heads},
                 .layout = GgufLayout::key_b,
                 .sources = {spec}});
  out.push_back({.name = fmt::format("blk.{}.attn_v_b.weight", layer),
                 .shape = {c.kv_lora_rank, c.v_head_dim, c.num_attention_heads},
                 .layout = GgufLayout::value_b,
                 .sources = {spec}});
}

// Index within a head of `head_dim`: of the half layout for one of the pair layout, and back.
std::int64_t half_of_pair(std::int64_t i, std::int64_t head_dim) { return i % 2 * (head_dim / 2) + i / 2; }
std::int64_t pair_of_half(std::int64_t i, std::int64_t head_dim) {
  return i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1;
}

// Rows (or, of a bias, elements) taken in another order.
RowSource reorder(RowSource source, std::int64_t head_dim, std::int64_t (*from)(std::int64_t, std::int64_t)) {
  RowSource out{source.rows, source.cols, {}};
  const auto origin = [head_dim, from](std::int64_t i) {
    return i / head_dim * head_dim + from(i % head_dim, head_dim);
  };
  if (source.rows == 1) {
    out.read = [source, origin](std::int64_t, std::int64_t count, float* values) {
      if (count == 0) return;
      std::vector<float> whole(static_cast<std::size_t>(source.cols));
      source.read(0, 1, whole.data());
      for (std::int64_t i = 0; i < source.cols; ++i) values[i] = whole[static_cast<std::size_t>(origin(i))];
    };
  } else {
    out.read = [source, origin](std::int64_t first, std::int64_t count, float* values) {
      for (std::int64_t row = 0; row < count; ++row)
        source.read(origin(first + row), 1, values + row * source.cols);
    };
  }
  return out;
}

// Calls body(group, first, last) for the runs of [first, first + count) that lie in one group of `size` rows;
// `first` and `last` count within the group.
template <class Body>
void for_groups(std::int64_t first, std::int64_t count, std::int64_t size, const Body& body) {
  for (std::int64_t at = first; at < first + count;) {
    const std::int64_t group = at / size, last = std::min(first + count, (group + 1) * size);
    body(group, at - group * size, last - group * size);
    at = last;
  }
}

RowSource key_b_rows(const RowSource& kv_b, const ModelConfig& c) {
  const std::int64_t nope = c.qk_nope_head_dim, head_rows = nope + c.v_head_dim, lora = c.kv_lora_rank;
  RowSource out{c.num_attention_heads * lora, nope, {}};
  out.read = [kv_b, nope, head_rows, lora](std::int64_t first, std::int64_t count, float* values) {
    std::vector<float> head(static_cast<std::size_t>(nope * lora));
    for_groups(first, count, lora, [&](std::int64_t h, std::int64_t begin, std::int64_t end) {
      kv_b.read(h * head_rows, nope, head.data());
      for (std::int64_t col = begin; col < end; ++col) {
        for (std::int64_t i = 0; i < nope; ++i) *values++ = head[static_cast<std::size_t>(i * lora + col)];
      }
    });
  };
  return out;
}

RowSource value_b_rows(const RowSource& kv_b, const ModelConfig& c) {
  const std::int64_t nope = c.qk_nope_head_dim, v = c.v_head_dim, lora = c.kv_lora_rank;
  RowSource out{c.num_attention_heads * v, lora, {}};
  out.read = [kv_b, nope, v, lora](std::int64_t first, std::int64_t count, float* values) {
    for_groups(first, count, v, [&](std::int64_t h, std::int64_t begin, std::int64_t end) {
      kv_b.read(h * (nope + v) + nope + begin, end - begin, values);
      values += (end - begin) * lora;
    });
  };
  return out;
}

// kv_b_proj [heads * (nope + v), lora] out of its two halves.
RowSource joined_kv_b(const RowSource& key, const RowSource& value, const ModelConfig& c) {
  const std::int64_t nope = c.qk_nope_head_dim, v = c.v_head_dim, lora = c.kv_lora_rank;
  RowSource out{c.num_attention_heads * (nope + v), lora, {}};
  out.read = [key, value, nope, v, lora](std::int64_t first, std::int64_t count, float* values) {
    std::vector<float> head(static_cast<std::size_t>(nope * lora));
    for_groups(first, count, nope + v, [&](std::int64_t h, std::int64_t begin, std::int64_t end) {
      if (begin < nope) key.read(h * lora, lora, head.data());
      for (std::int64_t row = begin; row < std::min(end, nope); ++row) {
        for (std::int64_t col = 0; col < lora; ++col)
          *values++ = head[static_cast<std::size_t>(col * nope + row)];
      }
      const std::int64_t value_begin = std::max(begin, nope) - nope, value_end = end - nope;
      if (value_end <= value_begin) return;
      value.read(h * v + value_begin, value_end - value_begin, values);
      values += (value_end - value_begin) * lora;
    });
  };
  return out;
}

RowSource stacked_rows(std::vector<RowSource> parts) {
  RowSource out{parts[0].rows * static_cast<std::int64_t>(parts.size()), parts[0].cols, {}};
  const auto shared = std::make_shared<std::vector<RowSource>>(std::move(parts));
  out.read = [shared, rows = shared->front().rows, cols = out.cols](std::int64_t first, std::int64_t count,
                                                                    float* values) {
    for_groups(first, count, rows, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      (*shared)[static_cast<std::size_t>(part)].read(begin, end - begin, values);
      values += (end - begin) * cols;
    });
  };
  return out;
}

const GgufTensor& need_tensor(const Gguf& file, const std::string& name,
                              const std::vector<std::int64_t>& shape) {
  const GgufTensor* tensor = file.find_tensor(name);
  require(tensor != nullptr, "{}: no tensor '{}'", file.path().string(), name);
  require(tensor->shape == shape, "{}: tensor '{}' has another shape than its metadata asks for",
          file.path().string(), name);
  return *tensor;
}

}  // namespace

std::vector<GgufSpec> gguf_specs(const ModelConfig& config, const GgufOptions& options) {
  require(config.attention != Attention::mla || config.rope_layout == RopeLayout::interleaved,
          "GGUF files of deepseek2 hold the interleaved rotary layout only");
  std::vector<GgufSpec> out;
  std::map<std::string, std::size_t> stacked;  // GGUF name -> place in `out`
  for (const TensorSpec& spec : tensor_specs(config)) {
    const auto [layer, rest] = split_layer(spec.name);
    if (layer && *layer >= config.num_hidden_layers && !options.mtp) continue;
    const auto expert = layer ? split_expert(rest, config) : std::nullopt;
    if (expert && options.split_experts) {
      out.push_back({.name = split_name(*layer, *expert), .shape = reversed(spec.shape), .sources = {spec}});
    } else if (expert) {
      const std::string name = fmt::format("blk.{}.{}", *layer, expert->gguf);
      const auto [place, fresh] = stacked.emplace(name, out.size());
      if (fresh)
        out.push_back({.name = name,
                       .shape = {spec.shape[1], spec.shape[0], config.moe.n_routed_experts},
                       .layout = GgufLayout::experts,
                       .sources = {}});
      out[place->second].sources.push_back(spec);
    } else if (layer && rest == "self_attn.kv_b_proj.weight" && !options.joined_kv_b) {
      add_split_kv_b(spec, config, out);
    } else {
      out.push_back(plain_spec(spec, config));
    }
  }
  return out;
}

RowSource gguf_tensor_rows(const GgufSpec& spec, const ModelConfig& config,
                           const std::function<RowSource(const TensorSpec&)>& open) {
  switch (spec.layout) {
    case GgufLayout::rope_pairs:
      return reorder(open(spec.sources[0]), config.head_dim, half_of_pair);
    case GgufLayout::key_b:
      return key_b_rows(open(spec.sources[0]), config);
    case GgufLayout::value_b:
      return value_b_rows(open(spec.sources[0]), config);
    case GgufLayout::experts: {
      std::vector<RowSource> parts;
      for (const TensorSpec& source : spec.sources) parts.push_back(open(source));
      return stacked_rows(std::move(parts));
    }
    default:
      return open(spec.sources[0]);
  }
}

RowSource hf_tensor_rows(const TensorSpec& spec, const ModelConfig& config, const Gguf& file) {
  const auto [layer, rest] = split_layer(spec.name);
  if (const auto expert = layer ? split_expert(rest, config) : std::nullopt) {
    if (const std::string name = split_name(*layer, *expert); file.find_tensor(name) != nullptr)
      return gguf_rows(file, need_tensor(file, name, reversed(spec.shape)));
    const std::string all_experts = fmt::format("blk.{}.{}", *layer, expert->gguf);
    const RowSource all = gguf_rows(
        file, need_tensor(file, all_experts, {spec.shape[1], spec.shape[0], config.moe.n_routed_experts}));
    return {spec.shape[0], spec.shape[1],
            [all, from = expert->expert * spec.shape[0]](std::int64_t first, std::int64_t count, float* out) {
              all.read(from + first, count, out);
            }};
  }
  const std::string name = gguf_name(spec.name);
  if (layer && rest == "self_attn.kv_b_proj.weight" && file.find_tensor(name) == nullptr) {
    std::vector<GgufSpec> halves;
    add_split_kv_b(spec, config, halves);
    return joined_kv_b(gguf_rows(file, need_tensor(file, halves[0].name, halves[0].shape)),
                       gguf_rows(file, need_tensor(file, halves[1].name, halves[1].shape)), config);
  }
  RowSource rows = gguf_rows(file, need_tensor(file, name, reversed(spec.shape)));
  if (rotates_pairs(config) && is_query_or_key(spec.name))
    return reorder(std::move(rows), config.head_dim, pair_of_half);
  return rows;
}

}  // namespace sinew
