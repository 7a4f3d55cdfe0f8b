#include "model/partition.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "config/layout.hpp"

namespace sinew {
namespace {

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](auto end) { return name.ends_with(end); });
}

// The dimension that the tensor group cuts, if any.
std::optional<std::size_t> tensor_dimension(std::string_view name) {
  if (ends_with_any(name, {"embed_tokens.weight", "lm_head.weight"})) return 0;
  if (name.find(".self_attn.") != std::string_view::npos) {
    if (name.ends_with("o_proj.weight")) return 1;
    if (ends_with_any(name, {"q_proj.weight", "q_b_proj.weight", "kv_b_proj.weight", "k_proj.weight",
                             "v_proj.weight", "q_proj.bias", "q_b_proj.bias", "k_proj.bias", "v_proj.bias"}))
      return 0;
    return {};
  }
  if (name.find("experts.") != std::string_view::npos) return {};
  if (name.ends_with("mlp.down_proj.weight")) return 1;
  if (ends_with_any(name, {"mlp.gate_proj.weight", "mlp.up_proj.weight"})) return 0;
  return {};
}

// The number after `mark` in `name`.
std::optional<std::int64_t> number_after(std::string_view name, std::string_view mark) {
  const auto at = name.find(mark);
  if (at == std::string_view::npos) return {};
  std::int64_t value = 0;
  const auto rest = name.substr(at + mark.size());
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc() || stop == rest.data()) return {};
  return value;
}

class Chooser {
 public:
  Chooser(const ModelConfig& config, const Partition& partition)
      : config_(config), partition_(partition), chunks_(chunks_of(partition, config)) {}

  bool holds(const std::string& name) const {
    const auto any = [&](auto test) { return std::any_of(chunks_.begin(), chunks_.end(), test); };
    if (const auto layer = number_after(name, "model.layers.")) {
      if (*layer >= config_.num_hidden_layers) return any([](const Chunk& c) { return c.mtp; });
      return any([&](const Chunk& c) { return *layer >= c.first_layer && *layer < c.end_layer; });
    }
    if (name == "model.embed_tokens.weight")
      return any(
          [&](const Chunk& c) { return c.embedding || c.mtp || (c.head && config_.tie_word_embeddings); });
    return any([](const Chunk& c) { return c.head; });
  }

  // Empty where another member of the group holds it.
  std::optional<PartSpec> part(const TensorSpec& spec) const {
    PartSpec out{.whole = spec,
                 .offset = std::vector<std::int64_t>(spec.shape.size(), 0),
                 .shape = spec.shape,
                 .spread = Spread::whole,
                 .unit = 0};
    if (const auto expert = number_after(spec.name, ".experts.")) {
      out.spread = Spread::expert;
      const auto size = size_of(partition_.expert), rank = rank_of(partition_.expert);
      const auto each = config_.moe.n_routed_experts / size;
      if (*expert / each != rank) return {};
    } else if (const auto dimension = tensor_dimension(spec.name);
               dimension && size_of(partition_.tensor) > 1) {
      out.spread = Spread::tensor;
      const auto size = size_of(partition_.tensor), rank = rank_of(partition_.tensor);
      const auto all = spec.shape[*dimension];
      out.offset[*dimension] = part_begin(all, size, rank);
      out.shape[*dimension] = part_begin(all, size, rank + 1) - out.offset[*dimension];
    }
    return out;
  }

  // What is gathered together.
  std::string unit_key(const std::string& name) const {
    if (const auto layer = number_after(name, "model.layers.")) return fmt::format("layer {}", *layer);
    return name == "model.embed_tokens.weight" ? "embedding" : "head";
  }

 private:
  const ModelConfig& config_;
  const Partition& partition_;
  std::vector<Chunk> chunks_;
};

}  // namespace

std::vector<Chunk> chunks_of(const Partition& partition, const ModelConfig& config) {
  if (!partition.chunks.empty()) return partition.chunks;
  return {{.first_layer = 0,
           .end_layer = config.num_hidden_layers,
           .embedding = true,
           .head = true,
           .mtp = config.num_nextn_predict_layers > 0}};
}

std::vector<PartSpec> part_specs(const ModelConfig& config, const Partition& partition) {
  const Chooser chooser(config, partition);
  std::vector<PartSpec> parts;
  std::string unit;
  for (const auto& spec : tensor_specs(config)) {
    if (!chooser.holds(spec.name)) continue;
    auto part = chooser.part(spec);
    if (!part) continue;
    const auto key = chooser.unit_key(spec.name);
    if (parts.empty()) {
      part->unit = 0;
    } else {
      part->unit = parts.back().unit + (key == unit ? 0 : 1);
    }
    unit = key;
    parts.push_back(std::move(*part));
  }
  return parts;
}

}  // namespace sinew
