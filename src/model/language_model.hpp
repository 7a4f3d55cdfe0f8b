// The network that a ModelConfig describes, on libtorch. Letters in shape comments: B rows, T tokens of
// a row, N = B*T, H hidden, V vocabulary, E experts, K experts a token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/model_config.hpp"
#include "model/partition.hpp"

namespace sinew {

struct Parameter {
  std::string name;     // HF name
  at::Tensor tensor;    // leaf; requires_grad unless a buffer
  bool buffer = false;  // e_score_correction_bias: saved, not trained by gradient
  PartSpec part{};      // which box of which tensor this is
};

// What the balancing of the gate asks for. Zero coefficients cost nothing.
struct BalanceOptions {
  double expert_alpha = 0;         // expert-level (V2 eq 23), per sequence if sequence_wise else per batch
  bool sequence_wise = true;       // without it a loss depends on what shares its micro-batch
  double joint_alpha = 0;          // Mixtral's router_aux_loss_coef: one loss over the tokens of all layers
  double device_alpha = 0;         // device-level (V2 eq 26) over `device_groups` groups of experts
  double communication_alpha = 0;  // communication-level (V2 eq 29)
  std::int64_t device_groups = 1, device_limit = 1;  // D and M of V2
  double z_alpha = 0;                                // router z-loss (ST-MoE eq 5)
  double capacity_factor = 0;  // 0: dropless; else tokens over capacity, lowest affinity first, are dropped
  double mtp_weight = 0.3;     // lambda of V3 eq 24
};

enum class Recompute { none, selective, full };

// What a forward pass went through, for study and tests.
struct ForwardTrace {
  std::vector<at::Tensor> hidden_states;  // [B, T, H]: the input of every layer, then the final-norm output
  struct LayerRouting {
    std::int64_t layer;
    at::Tensor experts, weights;  // [B*T, K], as Routing (ops/gate.hpp)
  };
  std::vector<LayerRouting> routing;  // of every MoE layer
};

// Load of one MoE layer in one forward pass, for logs and for the loss-free bias update.
struct RouterLoad {
  std::int64_t layer = 0;
  at::Tensor counts;         // [E] int64, tokens that chose each expert
  at::Tensor score_sum;      // [E] fp32, sum over tokens of normalised scores
  std::int64_t dropped = 0;  // assignments dropped by capacity
};

struct LossOutput {
  at::Tensor total;            // scalar fp32, scaled: what backward() runs on
  at::Tensor cross_entropy;    // scalar fp32, mean over targets that are not -100, detached
  at::Tensor balance, z, mtp;  // scalars, detached; undefined when absent
  std::vector<RouterLoad> loads;
};

// One micro-batch on its way through pipeline stages: whole rows, the same at every stage.
struct StageInput {
  at::Tensor tokens, targets, documents;  // as of LanguageModel::loss()
  double scale = 1;
  std::optional<double> row_share;
  std::vector<at::Tensor> flow;  // from the stage before; empty at the first
  // In place of losses (and with no targets): what the last stage says of the token after this one, of a
  // single row.
  std::int64_t logits_of = -1;
};
struct StageOutput {
  std::vector<at::Tensor> flow;  // to the stage after; empty at the last
  LossOutput loss;               // what this stage adds; undefined parts: nothing
  at::Tensor logits;             // [V] fp32 of StageInput::logits_of, of the last stage alone
};

// Keys and values (MLA: latents) of one row batch, grown by forward().
class KvCache;

class LanguageModel {
 public:
  // Weights from the counter-based generator: normal(0, initializer_range) keyed by (seed, name, index);
  // norms one, biases and e_score_correction_bias zero.
  LanguageModel(const ModelConfig& config, at::ScalarType dtype, at::Device device, std::uint64_t seed,
                const Partition& partition = {});
  // Weights not set: for whoever fills every parameter.
  LanguageModel(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                const Partition& partition = {});
  ~LanguageModel();
  const ModelConfig& config() const;
  const Partition& partition() const;
  const std::vector<Parameter>& parameters() const;  // those this process holds, in part_specs() order

  void set_balance(const BalanceOptions& options);
  void set_recompute(Recompute recompute);

  // tokens [B, T] int64 -> logits [B, T, V] fp32. `documents` [B, T] int32 (or undefined) masks attention
  // across documents. With a cache, tokens follow those already in it (and no gradients are kept).
  // Throws UserError for tokens outside the vocabulary and more positions than max_position_embeddings.
  at::Tensor logits(const at::Tensor& tokens, const at::Tensor& documents = {}, KvCache* cache = nullptr,
                    ForwardTrace* trace = nullptr);

  // targets [B, T] int64, -100 ignored. The sum over micro-batches of `scale * loss` is what one big
  // batch would give: pass scale = this micro-batch's share of the targets, and row_share = its share of
  // the rows where that differs (balancing losses are means over rows). `total` is already scaled; the parts
  // are not. With gradients off (evaluation) capacity drops nothing.
  LossOutput loss(const at::Tensor& tokens, const at::Tensor& targets, const at::Tensor& documents = {},
                  double scale = 1, std::optional<double> row_share = {});

  // The same by stages: chunk `chunk` of the partition. What flows on is the hidden state of this process's
  // tokens and, for a balancing loss over all layers (joint_alpha), sums over the layers so far.
  StageOutput stage(std::size_t chunk, const StageInput& input);
  // Tensors like those that flow between stages for `rows` rows of `tokens` tokens.
  std::vector<at::Tensor> empty_flow(std::int64_t rows, std::int64_t tokens) const;

  std::unique_ptr<KvCache> make_cache(std::int64_t rows, std::int64_t capacity) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// config.json, model*.safetensors (sharded with an index above `max_shard_bytes`); tensors keep the
// model's dtype. Load checks every name and shape against tensor_specs(). MTP layers absent from the
// files are left out with a warning by `load_model`.
std::unique_ptr<LanguageModel> load_model(const std::filesystem::path& directory, at::ScalarType dtype,
                                          at::Device device, const Partition& partition = {});
void save_model(const LanguageModel& model, const std::filesystem::path& directory,
                std::uint64_t max_shard_bytes = std::uint64_t{5} << 30);

}  // namespace sinew
