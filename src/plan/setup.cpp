#include "plan/setup.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew::plan {
namespace {

constexpr std::pair<const char*, Precision> precisions[] = {
    {"bf16", Precision::bf16}, {"fp8", Precision::fp8},   {"fp8-block", Precision::fp8_block},
    {"fp4", Precision::fp4},   {"int8", Precision::int8}, {"fp32", Precision::fp32}};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

Precision parse_precision(std::string_view name) {
  std::vector<std::string> known;
  for (const auto& [text, value] : precisions) {
    if (name == text) return value;
    known.emplace_back(text);
  }
  fail("precision '{}': unknown (bf16, fp8, fp8-block, fp4, int8, fp32){}", name, did_you_mean(name, known));
}

OptimizerKind parse_optimizer(std::string_view name) {
  if (name == "adamw") return OptimizerKind::adamw;
  if (name == "muon") return OptimizerKind::muon;
  fail("optimizer '{}': unknown (adamw, muon){}", name,
       did_you_mean(name, std::vector<std::string>{"adamw", "muon"}));
}

std::string precision_name(Precision precision) {
  for (const auto& [text, value] : precisions)
    if (value == precision) return text;
  return "?";
}

Recompute parse_recompute(std::string_view text) {
  Recompute r;
  if (text.empty() || text == "none") return r;
  if (text.starts_with("full")) {
    r.full = true;
    return r;
  }
  if (text.starts_with("partial")) r.norm = r.mla_up = true;
  const bool list = contains(text, "[") || contains(text, ",");
  if (!list && text.starts_with("selective")) {
    if (contains(text, "attention core") || text == "selective") r.attention = true;
    if (contains(text, "per op")) r.norm = r.activation = true;
    return r;
  }
  r.norm |= contains(text, "norm");
  r.activation |= contains(text, "act");
  r.mla_up |= contains(text, "mla_up");
  r.mlp |= contains(text, "mlp") || (contains(text, "moe") && !contains(text, "moe_act"));
  r.attention |= contains(text, "attn") || contains(text, "attention");
  return r;
}

std::string recompute_name(const Recompute& r) {
  if (r.full) return "full";
  std::vector<std::string> parts;
  if (r.attention) parts.emplace_back("attention");
  if (r.mla_up) parts.emplace_back("mla_up");
  if (r.norm) parts.emplace_back("norm");
  if (r.activation) parts.emplace_back("act");
  if (r.mlp) parts.emplace_back("mlp");
  return parts.empty() ? "none" : join(parts, "+");
}

Software modern() { return Software{}; }

std::string layout_problem(const Setup& s) {
  const Layout& l = s.layout;
  const Network& n = s.network;
  if (l.data < 1 || l.tensor < 1 || l.pipeline < 1 || l.context < 1 || l.expert < 1 || l.micro_batch < 1 ||
      l.chunks < 1)
    return "every degree of parallelism must be 1 or more";
  if (l.ranks() != s.count)
    return fmt::format("data {} x tensor {} x pipeline {} x context {} is {}, not the {} accelerators",
                       l.data, l.tensor, l.pipeline, l.context, l.ranks(), s.count);
  if (n.heads % l.tensor != 0)
    return fmt::format("{} attention heads do not divide by tensor {}", n.heads, l.tensor);
  if (!n.mla && n.kv_heads % l.tensor != 0 && l.tensor % n.kv_heads != 0)
    return fmt::format("{} key-value heads do not fit tensor {}", n.kv_heads, l.tensor);
  if (n.ffn > 0 && n.ffn % l.tensor != 0)
    return fmt::format("feed-forward width {} does not divide by tensor {}", n.ffn, l.tensor);
  if (static_cast<std::int64_t>(l.pipeline) * l.chunks > n.layers)
    return fmt::format("{} stages for {} layers", l.pipeline * l.chunks, n.layers);
  if (s.job.sequence % l.context != 0)
    return fmt::format("sequence {} does not divide by context {}", s.job.sequence, l.context);
  if (s.job.global_batch % (static_cast<std::int64_t>(l.data) * l.micro_batch) != 0)
    return fmt::format("batch {} does not divide by data {} x micro-batch {}", s.job.global_batch, l.data,
                       l.micro_batch);
  if (l.expert > 1 || l.expert_tensor > 1) {
    if (n.experts == 0) return "expert parallelism of a model without experts";
    if (n.experts % l.expert != 0)
      return fmt::format("{} experts do not divide by expert {}", n.experts, l.expert);
    const std::int64_t group = static_cast<std::int64_t>(l.data) * l.context * l.tensor;
    if (group % (static_cast<std::int64_t>(l.expert) * l.expert_tensor) != 0)
      return fmt::format("expert {} x expert-tensor {} does not divide data x context x tensor = {}",
                         l.expert, l.expert_tensor, group);
  }
  if (l.pipeline > 1 && l.schedule == ScheduleKind::dualpipe_v && 2 * l.pipeline > n.layers)
    return fmt::format("dualpipe-v wants {} stages of {} layers", 2 * l.pipeline, n.layers);
  return "";
}

}  // namespace sinew::plan
