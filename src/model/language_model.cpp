#include "model/language_model.hpp"

#include "base/error.hpp"
#include "model/balance.hpp"
#include "model/block.hpp"
#include "model/kv_cache.hpp"
#include "model/mtp.hpp"
#include "model/parameters.hpp"
#include "model/rotary.hpp"
#include "ops/embedding.hpp"
#include "ops/linear_cross_entropy.hpp"
#include "ops/rms_norm.hpp"
#include "ops/tensor.hpp"

namespace sinew {

using at::Tensor;

struct LanguageModel::Impl {
  ModelConfig config;
  at::ScalarType dtype;
  at::Device device;
  Partition partition;
  ParameterStore parameters;
  RotaryTable rotary;  // of the positions used so far
  Tensor embedding_weight, final_norm, head;
  std::vector<Block> blocks;
  std::vector<MtpLayer> mtp;
  BalanceOptions balance;
  Recompute recompute = Recompute::none;

  Impl(const ModelConfig& c, at::ScalarType type, at::Device where, const Partition& p)
      : config(c), dtype(type), device(where), partition(p), parameters(c, type, where, p) {
    embedding_weight = parameters.get("model.embed_tokens.weight");
    final_norm = parameters.get("model.norm.weight");
    head = config.tie_word_embeddings ? embedding_weight : parameters.get("lm_head.weight");
    for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) blocks.emplace_back(config, parameters, l);
    for (std::int64_t d = 0; d < config.num_nextn_predict_layers; ++d)
      mtp.emplace_back(config, parameters, d);
  }

  void check_tokens(const Tensor& tokens, std::int64_t first) const {
    require(tokens.dim() == 2 && tokens.numel() > 0, "the model takes rows of tokens, at least one of each");
    require(first + tokens.size(1) <= config.max_position_embeddings,
            "{} tokens in a row, but the model's max_position_embeddings is {}: use shorter rows",
            first + tokens.size(1), config.max_position_embeddings);
    const auto low = tokens.min().item<std::int64_t>(), high = tokens.max().item<std::int64_t>();
    require(low >= 0 && high < config.vocab_size, "token id {} is outside the model's vocabulary of {}",
            low < 0 ? low : high, config.vocab_size);
  }

  ForwardContext context(std::int64_t first, std::int64_t count, const Tensor& documents) {
    if (!rotary.cos.defined() || rotary.cos.size(0) < first + count) {
      const auto positions =
          std::min(config.max_position_embeddings, std::max<std::int64_t>(2 * (first + count), 512));
      rotary = rotary_table(config, positions, wide_type(dtype), device);
    }
    ForwardContext out;
    out.cos = rotary.cos.narrow(0, first, count);
    out.sin = rotary.sin.narrow(0, first, count);
    out.documents = documents;
    return out;
  }

  // tokens [B, T] -> the final norm's output [B, T, H].
  Tensor hidden(const Tensor& tokens, const ForwardContext& context, std::vector<RouterStats>& stats) const {
    auto x = embed(embedding_weight, tokens);
    for (const auto& block : blocks) x = block.forward(x, context, stats);
    x = rms_norm(x, final_norm, config.rms_norm_eps);
    if (context.trace != nullptr) context.trace->hidden_states.push_back(x.detach());
    return x;
  }

  Tensor loss_sum(const Tensor& hidden, const Tensor& targets) const {
    return linear_cross_entropy(hidden.reshape({-1, hidden.size(-1)}), head, targets.reshape({-1}));
  }

  // V3 eq 21-25: the mean over depths of each depth's loss, all as sums over targets.
  Tensor mtp_sum(Tensor hidden, const Tensor& tokens, const Tensor& targets, const ForwardContext& main,
                 std::vector<RouterStats>& stats) const {
    Tensor sum;
    for (std::size_t d = 0; d < mtp.size(); ++d) {
      const auto shift = static_cast<std::int64_t>(d) + 1, length = tokens.size(1) - shift;
      if (length < 1) break;
      auto context = main;
      context.cos = main.cos.narrow(0, 0, length);
      context.sin = main.sin.narrow(0, 0, length);
      auto later = targets.narrow(1, shift, length);
      if (main.documents.defined()) {
        context.documents = main.documents.narrow(1, 0, length);
        // The token to predict belongs to another document than the one predicting it.
        later = later.masked_fill(context.documents != main.documents.narrow(1, shift, length), -100);
      }
      const auto embedded = embed(embedding_weight, tokens.narrow(1, shift, length));
      hidden = mtp[d].forward(hidden.narrow(1, 0, length), embedded, context, stats);
      const auto one = loss_sum(mtp[d].head_input(hidden), later);
      sum = sum.defined() ? sum + one : one;
    }
    return sum.defined() ? sum / static_cast<double>(mtp.size()) : sum;
  }
};

LanguageModel::LanguageModel(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                             const Partition& partition)
    : impl_(std::make_unique<Impl>(config, dtype, device, partition)) {}

LanguageModel::LanguageModel(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                             std::uint64_t seed, const Partition& partition)
    : LanguageModel(config, dtype, device, partition) {
  initialize(impl_->parameters, config, seed);
}

LanguageModel::~LanguageModel() = default;
const ModelConfig& LanguageModel::config() const { return impl_->config; }
const Partition& LanguageModel::partition() const { return impl_->partition; }
const std::vector<Parameter>& LanguageModel::parameters() const { return impl_->parameters.list(); }
void LanguageModel::set_recompute(Recompute recompute) { impl_->recompute = recompute; }

void LanguageModel::set_balance(const BalanceOptions& options) {
  check_balance(options, impl_->config);
  impl_->balance = options;
}

Tensor LanguageModel::logits(const Tensor& tokens, const Tensor& documents, KvCache* cache,
                             ForwardTrace* trace) {
  const auto first = cache == nullptr ? 0 : cache->length();
  impl_->check_tokens(tokens, first);
  const at::AutoGradMode mode(cache == nullptr && at::GradMode::is_enabled());
  if (cache != nullptr) {
    ensure(!documents.defined(), "documents and a cache together");
    ensure(tokens.size(0) == cache->rows() && first + tokens.size(1) <= cache->capacity(),
           "{} rows of {} tokens do not fit the cache", tokens.size(0), first + tokens.size(1));
  }
  auto context = impl_->context(first, tokens.size(1), documents);
  context.cache = cache;
  context.trace = trace;
  context.recompute = impl_->recompute;
  std::vector<RouterStats> stats;
  const auto hidden = impl_->hidden(tokens, context, stats);
  if (cache != nullptr) cache->advance(tokens.size(1));
  return widen(project(hidden, impl_->head));
}

LossOutput LanguageModel::loss(const Tensor& tokens, const Tensor& targets, const Tensor& documents,
                               double scale, std::optional<double> row_share) {
  impl_->check_tokens(tokens, 0);
  require(targets.sizes() == tokens.sizes(), "targets and tokens differ in shape");
  const auto counted = targets != -100;
  require(at::logical_or(counted.logical_not(), (targets >= 0).logical_and(targets < config().vocab_size))
              .all()
              .item<bool>(),
          "a target is outside the model's vocabulary of {}", config().vocab_size);
  auto context = impl_->context(0, tokens.size(1), documents);
  context.training = at::GradMode::is_enabled();
  context.recompute = impl_->recompute;
  context.balance = impl_->balance;

  std::vector<RouterStats> stats;
  const auto hidden = impl_->hidden(tokens, context, stats);
  const auto count = counted.sum().clamp_min(1);
  const auto cross_entropy = impl_->loss_sum(hidden, targets) / count;
  LossOutput out;
  out.cross_entropy = cross_entropy.detach();
  out.total = cross_entropy * scale;
  if (context.balance.mtp_weight > 0 && !impl_->mtp.empty()) {
    const auto sum = impl_->mtp_sum(hidden, tokens, targets, context, stats);
    if (sum.defined()) {
      out.mtp = (sum / count).detach();
      out.total = out.total + sum / count * (context.balance.mtp_weight * scale);
    }
  }
  const auto losses = balance_losses(stats, context.balance, config());
  if (losses.balance.defined()) {
    out.balance = losses.balance.detach();
    out.total = out.total + losses.balance * row_share.value_or(scale);
  }
  if (losses.z.defined()) {
    out.z = losses.z.detach();
    out.total = out.total + losses.z * row_share.value_or(scale);
  }
  for (const auto& layer : stats) out.loads.push_back(router_load(layer));
  return out;
}

std::unique_ptr<KvCache> LanguageModel::make_cache(std::int64_t rows, std::int64_t capacity) const {
  return std::make_unique<KvCache>(impl_->config, rows, capacity, impl_->dtype, impl_->device);
}

}  // namespace sinew
