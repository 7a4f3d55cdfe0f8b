#include "engine/model.hpp"

#include <algorithm>
#include <functional>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/tensor_finder.hpp"

namespace sinew::engine {
namespace {

// The format for a matrix derived from another: it holds what that holds, exactly or nearly (of quantized
// weights 8 bits keep all that counts, and are read fast).
BlockFormat derived_format(const WeightMatrix& w, index_t cols) {
  if (w.storage != Storage::blocks) return BlockFormat::bf16;
  if (block_info(w.format).elements == 1) return w.format;
  return cols % 32 == 0 ? BlockFormat::q8_0 : BlockFormat::f16;
}

WeightMatrix transposed(const WeightMatrix& w, const std::string& name) {
  std::vector<float> values(size(w.rows * w.cols)), turned(values.size());
  weight_rows(w, 0, w.rows, values.data(), w.cols);
  for (index_t r = 0; r < w.rows; ++r)
    for (index_t c = 0; c < w.cols; ++c) turned[size(c * w.rows + r)] = values[size(r * w.cols + c)];
  return own_matrix(name, w.cols, w.rows, turned.data(), derived_format(w, w.rows));
}

class Loader {
 public:
  Loader(std::string origin, std::unique_ptr<TensorFinder> tensors)
      : path_(std::move(origin)), tensors_(std::move(tensors)) {}

  std::shared_ptr<Model> load() {
    auto model = std::make_shared<Model>();
    model->config = tensors_->config();
    model->rope_layout = tensors_->rope_layout();
    model->files = tensors_->files();
    model->mapped = tensors_->mapped();
    ModelConfig& config = model->config;
    model->embedding = matrix("model.embed_tokens.weight");
    for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) model->layers.push_back(layer(l));
    model->final_norm = vector("model.norm.weight");
    model->head = config.tie_word_embeddings ? model->embedding : matrix("lm_head.weight");
    for (std::int64_t d = 0; d < config.num_nextn_predict_layers; ++d) {
      const std::int64_t l = config.num_hidden_layers + d;
      if (!tensors_->find(fmt::format("model.layers.{}.eh_proj.weight", l))) {
        log::debug("{}: no weights of multi-token-prediction layer {}: left out", path_, l);
        config.num_nextn_predict_layers = d;
        break;
      }
      model->predictions.push_back(prediction(l));
    }
    each_matrix(*model, [&](WeightMatrix& w) { model->weight_bytes += w.bytes(); });
    return model;
  }

 private:
  WeightMatrix matrix(const std::string& name) const {
    auto found = tensors_->find(name);
    require(found.has_value(), "{}: no tensor '{}'", path_, name);
    return std::move(*found);
  }
  std::vector<float> values(const WeightMatrix& w) const {
    std::vector<float> out(size(w.rows * w.cols));
    weight_rows(w, 0, w.rows, out.data(), w.cols);
    return out;
  }
  std::vector<float> vector(const std::string& name) const { return values(matrix(name)); }
  std::vector<float> vector_if(bool wanted, const std::string& name) const {
    return wanted ? vector(name) : std::vector<float>();
  }

  Layer layer(std::int64_t index) const {
    const ModelConfig& config = tensors_->config();
    const std::string prefix = fmt::format("model.layers.{}.", index);
    Layer out;
    out.attention_norm = vector(prefix + "input_layernorm.weight");
    out.ffn_norm = vector(prefix + "post_attention_layernorm.weight");
    if (config.attention == Attention::mla)
      out.latent = latent(prefix + "self_attn.");
    else
      out.grouped = grouped(prefix + "self_attn.");
    out.o = matrix(prefix + "self_attn.o_proj.weight");
    out.o_bias = vector_if(config.attention_bias && out.grouped, prefix + "self_attn.o_proj.bias");
    if (config.ffn_kind(index) == FfnKind::moe)
      out.moe = experts(prefix + std::string(moe_names(config).module) + ".");
    else
      out.dense = swiglu(prefix + "mlp.", "gate_proj", "up_proj", "down_proj");
    return out;
  }

  LatentAttention latent(const std::string& prefix) const {
    const ModelConfig& config = tensors_->config();
    LatentAttention out;
    if (config.q_lora_rank) {
      out.q_a = matrix(prefix + "q_a_proj.weight");
      out.q_a_norm = vector(prefix + "q_a_layernorm.weight");
    }
    out.q = matrix(prefix + (config.q_lora_rank ? "q_b_proj.weight" : "q_proj.weight"));
    out.kv_a = matrix(prefix + "kv_a_proj_with_mqa.weight");
    out.kv_a_norm = vector(prefix + "kv_a_layernorm.weight");
    const std::string name = prefix + "kv_b_proj.weight";
    const index_t heads = config.num_attention_heads, nope = config.qk_nope_head_dim, v = config.v_head_dim;
    if (const auto key = tensors_->key_b(name), value = tensors_->value_b(name); key && value) {
      for (index_t h = 0; h < heads; ++h) {
        out.key_absorb.push_back(row_range(*key, h * config.kv_lora_rank, config.kv_lora_rank));
        out.key_up.push_back(transposed(out.key_absorb.back(), name));
        out.value_up.push_back(row_range(*value, h * v, v));
      }
      return out;
    }
    WeightMatrix kv_b = matrix(name);
    if (kv_b.scales != nullptr && (nope % kFp8Block != 0 || v % kFp8Block != 0))
      kv_b = own_matrix(name, kv_b.rows, kv_b.cols, values(kv_b).data(), BlockFormat::bf16);
    for (index_t h = 0; h < heads; ++h) {
      out.key_up.push_back(row_range(kv_b, h * (nope + v), nope));
      out.key_absorb.push_back(transposed(out.key_up.back(), name));
      out.value_up.push_back(row_range(kv_b, h * (nope + v) + nope, v));
    }
    return out;
  }

  GroupedAttention grouped(const std::string& prefix) const {
    const ModelConfig& config = tensors_->config();
    GroupedAttention out;
    const auto load = [&](const char* name, WeightMatrix& w, std::vector<float>& bias) {
      w = matrix(prefix + name + ".weight");
      bias = vector_if(config.attention_bias, prefix + name + ".bias");
    };
    load("q_proj", out.q, out.q_bias);
    load("k_proj", out.k, out.k_bias);
    load("v_proj", out.v, out.v_bias);
    out.q_norm = vector_if(config.qk_norm, prefix + "q_norm.weight");
    out.k_norm = vector_if(config.qk_norm, prefix + "k_norm.weight");
    return out;
  }

  SwigluWeights swiglu(const std::string& prefix, std::string_view gate, std::string_view up,
                       std::string_view down) const {
    const auto load = [&](std::string_view name) { return matrix(fmt::format("{}{}.weight", prefix, name)); };
    return {load(gate), load(up), load(down)};
  }

  MixtureOfExperts experts(const std::string& prefix) const {
    const ModelConfig& config = tensors_->config();
    const MoeNames names = moe_names(config);
    MixtureOfExperts out;
    out.router = matrix(prefix + "gate.weight");
    out.correction_bias =
        vector_if(config.moe.topk_method == TopkMethod::noaux_tc, prefix + "gate.e_score_correction_bias");
    for (std::int64_t e = 0; e < config.moe.n_routed_experts; ++e)
      out.experts.push_back(
          swiglu(fmt::format("{}experts.{}.", prefix, e), names.gate, names.up, names.down));
    if (config.moe.n_shared_experts > 0)
      out.shared = swiglu(prefix + "shared_experts.", "gate_proj", "up_proj", "down_proj");
    return out;
  }

  PredictionLayer prediction(std::int64_t index) const {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    PredictionLayer out;
    out.embedding_norm = vector(prefix + "enorm.weight");
    out.hidden_norm = vector(prefix + "hnorm.weight");
    out.head_norm = vector(prefix + "shared_head.norm.weight");
    out.projection = matrix(prefix + "eh_proj.weight");
    out.layer = layer(index);
    return out;
  }

  std::string path_;
  std::unique_ptr<TensorFinder> tensors_;
};

// Decoding is absorbed: it reads no key_up.
enum class Of { all, decoding };

template <class SomeLayer, class Visit>
void each_of_attention(SomeLayer& layer, Of which, const Visit& visit) {
  if (layer.latent) {
    auto& a = *layer.latent;
    if (a.q_a.present()) visit(a.q_a);
    visit(a.q);
    visit(a.kv_a);
    for (auto* list : {&a.key_up, &a.key_absorb, &a.value_up})
      if (which == Of::all || list != &a.key_up)
        for (auto& w : *list) visit(w);
  }
  if (layer.grouped)
    for (auto* w : {&layer.grouped->q, &layer.grouped->k, &layer.grouped->v}) visit(*w);
  visit(layer.o);
}

template <class Network, class Visit>
void each_of_network(Network& network, const Visit& visit) {
  visit(network.gate);
  visit(network.up);
  visit(network.down);
}

void each_of_layer(Layer& layer, const std::function<void(WeightMatrix&)>& visit) {
  each_of_attention(layer, Of::all, visit);
  if (layer.dense) each_of_network(*layer.dense, visit);
  if (!layer.moe) return;
  visit(layer.moe->router);
  for (auto& expert : layer.moe->experts) each_of_network(expert, visit);
  if (layer.moe->shared) each_of_network(*layer.moe->shared, visit);
}

}  // namespace

void each_matrix(Model& model, const std::function<void(WeightMatrix&)>& visit) {
  visit(model.embedding);
  for (Layer& layer : model.layers) each_of_layer(layer, visit);
  if (model.head.data != model.embedding.data) visit(model.head);
  for (PredictionLayer& prediction : model.predictions) {
    visit(prediction.projection);
    each_of_layer(prediction.layer, visit);
  }
}

void each_decoding_matrix(const Model& model, index_t experts,
                          const std::function<void(const WeightMatrix&)>& visit) {
  for (const Layer& layer : model.layers) {
    each_of_attention(layer, Of::decoding, visit);
    if (layer.dense) each_of_network(*layer.dense, visit);
    if (!layer.moe) continue;
    visit(layer.moe->router);
    for (index_t e = 0; e < experts; ++e) each_of_network(layer.moe->experts[size(e)], visit);
    if (layer.moe->shared) each_of_network(*layer.moe->shared, visit);
  }
  visit(model.head);
}

std::uint64_t Model::bytes_per_token() const {
  std::uint64_t bytes = embedding.row_bytes;
  each_decoding_matrix(*this, config.moe.num_experts_per_tok,
                       [&bytes](const WeightMatrix& w) { bytes += w.bytes(); });
  return bytes;
}

void stream_experts(Model& model, std::uint64_t memory) {
  if (model.weight_bytes <= memory) return;
  std::uint64_t experts = 0;
  for (Layer& layer : model.layers)
    if (layer.moe)
      for (SwigluWeights& expert : layer.moe->experts)
        each_of_network(expert, [&](WeightMatrix& w) { experts += w.bytes(); });
  const std::uint64_t resident = model.weight_bytes - experts;
  require(experts > 0, "the model takes {} and has no routed experts that could stay on disk",
          human_bytes(static_cast<double>(model.weight_bytes)));
  require(memory > resident, "--memory {}: {} are needed beside the experts",
          human_bytes(static_cast<double>(memory)), human_bytes(static_cast<double>(resident)));
  model.store = std::make_shared<ExpertStore>(model, memory - resident);
}

ModelConfig model_config(const std::filesystem::path& path) { return open_tensors(path)->config(); }

std::shared_ptr<Model> load_model(const std::filesystem::path& path) {
  return Loader(path.string(), open_tensors(path)).load();
}

std::shared_ptr<Model> make_model(const std::string& origin, std::unique_ptr<TensorFinder> tensors) {
  return Loader(origin, std::move(tensors)).load();
}

}  // namespace sinew::engine
