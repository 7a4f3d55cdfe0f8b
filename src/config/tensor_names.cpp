#include "config/tensor_names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

namespace sinew {
namespace {

// The number after `mark` in `name`.
std::optional<std::int64_t> number_after(std::string_view name, std::string_view mark) {
  const auto at = name.find(mark);
  if (at == std::string_view::npos) return {};
  std::int64_t value = 0;
  const auto rest = name.substr(at + mark.size());
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](auto end) { return name.ends_with(end); });
}

}  // namespace

std::optional<std::int64_t> layer_of(std::string_view name) {
  return name.starts_with("model.layers.") ? number_after(name, "model.layers.") : std::nullopt;
}

std::optional<std::int64_t> expert_of(std::string_view name) { return number_after(name, ".experts."); }

std::optional<std::size_t> tensor_cut(std::string_view name) {
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

std::string unit_name(std::string_view name) {
  if (const auto layer = layer_of(name)) return fmt::format("layer {}", *layer);
  return name == "model.embed_tokens.weight" ? "embedding" : "head";
}

}  // namespace sinew
