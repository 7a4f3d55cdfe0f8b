#include <algorithm>

#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "inspect/weight_memory.hpp"

namespace sinew {
namespace {

std::uint64_t positive(std::int64_t value) { return static_cast<std::uint64_t>(value); }

std::string attention_text(const ModelConfig& c) {
  if (c.attention == Attention::gqa)
    return fmt::format("{} heads of {}, {} key-value heads{}{}", c.num_attention_heads, c.head_dim,
                       c.num_key_value_heads, c.qk_norm ? ", normalised queries and keys" : "",
                       c.attention_bias ? ", biases" : "");
  return fmt::format("latent (MLA), {} heads of {} + {} rotary, values {}, kv rank {}, query rank {}",
                     c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim,
                     c.kv_lora_rank, c.q_lora_rank ? std::to_string(*c.q_lora_rank) : "none");
}

std::string rope_text(const ModelConfig& c) {
  std::string text = fmt::format("theta {}, {} pairs", c.rope_theta,
                                 c.rope_layout == RopeLayout::interleaved ? "adjacent" : "half-apart");
  if (c.yarn)
    text += fmt::format(", YaRN x{} of {}", c.yarn->factor, c.yarn->original_max_position_embeddings);
  if (c.llama3)
    text += fmt::format(", llama3 x{} of {}", c.llama3->factor, c.llama3->original_max_position_embeddings);
  if (c.rope_linear_factor != 1) text += fmt::format(", linear x{}", c.rope_linear_factor);
  return text;
}

std::string experts_text(const MoeConfig& moe) {
  std::string text = fmt::format("{} routed of width {}, {} a token", moe.n_routed_experts,
                                 moe.moe_intermediate_size, moe.num_experts_per_tok);
  if (moe.topk_method != TopkMethod::greedy)
    text += fmt::format(" from {} of {} groups", moe.topk_group, moe.n_group);
  text += fmt::format(", {} shared, {} scores", moe.n_shared_experts,
                      moe.scoring_func == ScoringFunc::softmax ? "softmax" : "sigmoid");
  if (moe.topk_method == TopkMethod::noaux_tc) text += " with a balancing bias";
  if (moe.norm_topk_prob) text += ", renormalised";
  if (moe.routed_scaling_factor != 1) text += fmt::format(", scaled by {}", moe.routed_scaling_factor);
  return text;
}

void add_shape(ReportBuilder& report, const ModelConfig& c) {
  std::int64_t sparse = 0;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) sparse += c.ffn_kind(l) == FfnKind::moe ? 1 : 0;
  const std::string kinds =
      sparse == 0 ? "dense" : fmt::format("{} dense, {} MoE", c.num_hidden_layers - sparse, sparse);
  const std::string mtp =
      c.num_nextn_predict_layers > 0 ? fmt::format(" + {} MTP", c.num_nextn_predict_layers) : "";
  report.line("  family      {}", c.model_type);
  report.line("  layers      {} ({}){}, hidden {}, dense width {}", c.num_hidden_layers, kinds, mtp,
              c.hidden_size, c.intermediate_size);
  report.line("  vocabulary  {}, embedding and head {}", with_commas(positive(c.vocab_size)),
              c.tie_word_embeddings ? "tied" : "apart");
  report.line("  context     {} tokens; {}", with_commas(positive(c.max_position_embeddings)), rope_text(c));
  report.line("  attention   {}", attention_text(c));
  if (sparse > 0) report.line("  experts     {}", experts_text(c.moe));
}

void add_parameters(ReportBuilder& report, const ModelConfig& config) {
  const auto counts = count_parameters(config);
  const auto row = [&](const char* name, std::int64_t count, const char* what) {
    report.line("  {:<10} {:>18}  {:>6}{}", name, with_commas(positive(count)),
                human_count(static_cast<double>(count)), what);
  };
  report.heading("Parameters");
  row("total", counts.total, counts.mtp > 0 ? "  without MTP layers" : "");
  row("active", counts.active, "  used by one token, embedding and head included");
  row("  or", counts.active - (config.tie_word_embeddings ? 0 : counts.embedding),
      "  without the embedding, which is only looked up");
  row("embedding", counts.embedding, "");
  if (counts.mtp > 0) row("MTP", counts.mtp, "");
  report.json["parameters"] = {{"total", counts.total},
                               {"active", counts.active},
                               {"embedding", counts.embedding},
                               {"mtp", counts.mtp}};
}

void add_memory(ReportBuilder& report, const ModelConfig& config) {
  report.heading("Memory of the weights by format");
  report.line("  {:<6} {:>11} {:>12} {:>12}{}", "format", "bits/weight", "total", "active",
              config.num_nextn_predict_layers > 0 ? "          MTP" : "");
  const auto total = static_cast<double>(count_parameters(config).total);
  Json memory = Json::object();
  for (const WeightFormat& format : weight_formats()) {
    const WeightMemory bytes = weight_memory(config, format);
    const double bits = 8 * bytes.total / total;
    report.line("  {:<6} {:>11.3f} {:>12} {:>12}{}", format.name, bits, human_bytes(bytes.total),
                human_bytes(bytes.active),
                bytes.mtp > 0 ? fmt::format(" {:>12}", human_bytes(bytes.mtp)) : "");
    memory[std::string(format.name)] = {{"bits_per_weight", bits},
                                        {"total", static_cast<std::uint64_t>(bytes.total)},
                                        {"active", static_cast<std::uint64_t>(bytes.active)},
                                        {"mtp", static_cast<std::uint64_t>(bytes.mtp)}};
  }
  report.json["memory_bytes"] = std::move(memory);
}

void add_cache(ReportBuilder& report, const ModelConfig& config) {
  const auto elements = kv_elements_per_token(config);
  const auto context = static_cast<double>(config.max_position_embeddings);
  report.heading(fmt::format("KV cache: {} elements a token", with_commas(positive(elements))));
  Json bytes = Json::object();
  for (const auto& [name, size] : {std::pair{"F32", 4}, {"BF16", 2}, {"FP8", 1}}) {
    report.line("  {:<5} {:>12} bytes a token, {:>10} for a full context", name,
                with_commas(positive(elements * size)),
                human_bytes(static_cast<double>(elements * size) * context));
    bytes[name] = elements * size;
  }
  report.json["kv_elements_per_token"] = elements;
  report.json["kv_bytes_per_token"] = std::move(bytes);
}

}  // namespace

void add_model_facts(ReportBuilder& report, const ModelConfig& config) {
  add_shape(report, config);
  report.json["config"] = Json::parse(write_model_config(config));
  add_parameters(report, config);
  add_memory(report, config);
  add_cache(report, config);
  const double flops =
      train_flops_per_token(config, std::min<std::int64_t>(4096, config.max_position_embeddings));
  report.heading(fmt::format("Training: {:.3g} GFLOP a token (sequences of {})", flops / 1e9,
                             std::min<std::int64_t>(4096, config.max_position_embeddings)));
  report.json["train_flops_per_token"] = flops;
  for (const auto* ids : {&config.bos_token_ids, &config.eos_token_ids})
    for (const auto id : *ids)
      if (id >= config.vocab_size)
        report.note(fmt::format("{} {} is outside the vocabulary of {}",
                                ids == &config.bos_token_ids ? "bos_token_id" : "eos_token_id", id,
                                config.vocab_size));
}

Report inspect_config(const std::filesystem::path& path, const ModelConfig& config,
                      const InspectOptions& options) {
  ReportBuilder report(path, "model configuration");
  add_model_facts(report, config);
  std::vector<TensorRow> rows;
  for (const TensorSpec& spec : tensor_specs(config)) rows.push_back({spec.name, spec.shape, "", 0});
  add_tensor_table(report, rows, options.all_tensors);
  return report.finish();
}

}  // namespace sinew
