// Networks of equal work a token, dense and sparse, for `sinew bench lean` (docs/lean.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/model_config.hpp"

namespace sinew {

enum class LeanKind {
  dense,  // one SwiGLU network a layer
  fine,   // fine-grained experts and one shared (DeepSeekMoE, arXiv 2401.06066): 8 of 32 + 1 small ones
  top2,   // 2 of 8 large ones, their weights renormalised (Mixtral, arXiv 2401.04088)
};
constexpr LeanKind kLeanKinds[] = {LeanKind::dense, LeanKind::fine, LeanKind::top2};
std::string_view lean_name(LeanKind kind);
LeanKind parse_lean_kind(std::string_view name);  // throws UserError

struct LeanSize {
  std::int64_t hidden = 0, layers = 0;
  std::string name() const;  // "128x5"
  bool operator==(const LeanSize&) const = default;
};
// "128x5": hidden a multiple of 32 up to 4096, 1 to 128 layers. Throws UserError.
LeanSize parse_lean_size(std::string_view text);

// All kinds of a size have the same embedding, attention (MLA, heads of 32) and head, and feed-forward layers
// of the same active elements, routers counted: 3 hidden (k + s) w + experts x hidden is that of `fine`, from
// which the widths of the other two follow, rounded to whole elements.
ModelConfig lean_model(LeanKind kind, const LeanSize& size, std::int64_t vocabulary, std::int64_t sequence);

struct LeanCounts {
  std::int64_t total = 0, active = 0;  // parameters; active without the embedding table, which is looked up
  double flops_per_token = 0;          // of training, head and causal attention included
};
LeanCounts count_lean(const ModelConfig& model, std::int64_t sequence);

}  // namespace sinew
