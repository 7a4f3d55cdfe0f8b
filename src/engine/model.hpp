// A model as the engine runs it: its config and its weight matrices, mapped from a Hugging Face directory or
// a GGUF file of any supported family.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/files.hpp"
#include "config/model_config.hpp"
#include "engine/expert_store.hpp"
#include "engine/linear.hpp"

namespace sinew::engine {

// Multi-head latent attention (DeepSeek-V2 section 2.1). kv_b_proj head by head: `key_up` and `value_up`
// bring a latent to a head's keys and values (expanded form); `key_absorb`, the transpose of key_up, brings a
// query into the latent space (absorbed form, appendix C).
struct LatentAttention {
  WeightMatrix q_a;              // [q_lora, hidden]; absent: q reads the hidden state
  std::vector<float> q_a_norm;   // [q_lora]
  WeightMatrix q;                // [heads * (nope + rope), q_lora or hidden]
  WeightMatrix kv_a;             // [kv_lora + rope, hidden]
  std::vector<float> kv_a_norm;  // [kv_lora]
  std::vector<WeightMatrix> key_up, key_absorb, value_up;  // a head: [nope, lora], [lora, nope], [v, lora]
};

struct GroupedAttention {
  WeightMatrix q, k, v;
  std::vector<float> q_bias, k_bias, v_bias;  // empty: none
  std::vector<float> q_norm, k_norm;          // [head_dim], empty: none
};

struct MixtureOfExperts {
  WeightMatrix router;                 // [experts, hidden]
  std::vector<float> correction_bias;  // [experts], added for the choice alone; empty: none
  std::vector<SwigluWeights> experts;
  std::optional<SwigluWeights> shared;
};

struct Layer {
  std::vector<float> attention_norm, ffn_norm;  // [hidden]
  std::optional<LatentAttention> latent;        // one of the two
  std::optional<GroupedAttention> grouped;
  WeightMatrix o;  // [hidden, heads * v]
  std::vector<float> o_bias;
  std::optional<SwigluWeights> dense;  // one of the two
  std::optional<MixtureOfExperts> moe;
};

// One more predicted token (DeepSeek-V3 section 2.2).
struct PredictionLayer {
  std::vector<float> embedding_norm, hidden_norm, head_norm;  // [hidden]
  WeightMatrix projection;                                    // [hidden, 2 * hidden]: embedding first
  Layer layer;
};

struct Model {
  ModelConfig config;
  // Of the q and k that the file's weights make: llama.cpp turns the rows of llama's to adjacent pairs.
  RopeLayout rope_layout = RopeLayout::half;
  WeightMatrix embedding, head;  // [vocab, hidden]
  std::vector<Layer> layers;
  std::vector<float> final_norm;
  std::vector<PredictionLayer> predictions;
  std::uint64_t weight_bytes = 0;     // of all matrices and vectors, as stored
  std::shared_ptr<const void> files;  // mapped
  std::vector<const MappedFile*> mapped;
  std::shared_ptr<ExpertStore> store;  // routed experts of `layers` that stay on disk; null: all are mapped

  // Bytes of weights read to decode one token of one sequence, routed experts counted top_k times.
  std::uint64_t bytes_per_token() const;
};

// `path` is a Hugging Face directory or a GGUF file. Every tensor's name, shape and type is checked; nothing
// is copied but vectors. MTP layers that the files do not have are left out. Throws UserError naming file and
// tensor.
std::shared_ptr<Model> load_model(const std::filesystem::path& path);

// The same from any source of tensors; `origin` is what errors name.
class TensorFinder;
std::shared_ptr<Model> make_model(const std::string& origin, std::unique_ptr<TensorFinder> tensors);

// Keeps the routed experts on disk, with a cache of the most used ones, so that weights and experts take
// about `memory` bytes. Does nothing when all of the model fits. Call before the weights are repacked.
void stream_experts(Model& model, std::uint64_t memory);

// The config alone.
ModelConfig model_config(const std::filesystem::path& path);

// Every matrix that linear() may read, once.
void each_matrix(Model& model, const std::function<void(WeightMatrix&)>& visit);

// Every matrix that decoding reads in whole, in its order, with the first `experts` routed experts of each
// layer.
void each_decoding_matrix(const Model& model, index_t experts,
                          const std::function<void(const WeightMatrix&)>& visit);

}  // namespace sinew::engine
