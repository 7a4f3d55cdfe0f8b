#include "model/language_model.hpp"

#include "base/error.hpp"
#include "config/layout.hpp"
#include "model/balance.hpp"
#include "model/block.hpp"
#include "model/kv_cache.hpp"
#include "model/mtp.hpp"
#include "model/parameters.hpp"
#include "model/rotary.hpp"
#include "ops/ring_attention.hpp"
#include "ops/rms_norm.hpp"
#include "ops/sequence_parallel.hpp"
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
  std::vector<StagePart> chunks;
  Tensor embedding_weight, final_norm, head;  // undefined where this process has none
  std::int64_t vocabulary_first = 0;          // the first row of embedding and head that it holds
  std::vector<std::vector<Block>> blocks;     // of each chunk
  std::vector<MtpLayer> mtp;
  BalanceOptions balance;
  Recompute recompute = Recompute::none;

  Impl(const ModelConfig& c, at::ScalarType type, at::Device where, const Partition& p)
      : config(c),
        dtype(type),
        device(where),
        partition(p),
        parameters(c, type, where, p),
        chunks(chunks_of(p, c)),
        embedding_weight(parameters.find("model.embed_tokens.weight")),
        final_norm(parameters.find("model.norm.weight")),
        head(c.tie_word_embeddings ? embedding_weight : parameters.find("lm_head.weight")),
        vocabulary_first(part_begin(c.vocab_size, size_of(p.tensor), rank_of(p.tensor))) {
    for (const auto& chunk : chunks) {
      auto& own = blocks.emplace_back();
      for (auto l = chunk.first; l < chunk.end; ++l) own.emplace_back(config, parameters, l);
      for (std::int64_t d = 0; chunk.head && d < config.num_nextn_predict_layers; ++d)
        mtp.emplace_back(config, parameters, d);
    }
  }

  // Tells whoever gathers and frees the weights of units (model/partition.hpp).
  Tensor enter(std::size_t unit, const Tensor& x) const {
    return partition.hooks == nullptr ? x : partition.hooks->enter(unit, x);
  }
  Tensor leave(std::size_t unit, const Tensor& y) const {
    return partition.hooks == nullptr ? y : partition.hooks->leave(unit, y);
  }
  std::size_t head_unit() const { return parameters.unit("model.norm."); }

  bool whole() const {
    return chunks.size() == 1 && chunks[0].embedding && chunks[0].head && size_of(partition.row) == 1;
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

  // The context of a forward pass over whole rows from position 0 without a cache.
  ForwardContext row_context(std::int64_t tokens, const Tensor& documents) {
    auto out = context(0, tokens, documents);
    cut_context(out, partition, tokens, device);
    return out;
  }

  Tensor embedded(const Tensor& tokens, const RowCut& cut) const {
    const auto unit = parameters.unit("model.embed_tokens.");
    const auto ids = enter(unit, cut.of_context(tokens));
    return leave(unit, vocabulary_embed(embedding_weight, vocabulary_first, ids, partition.tensor));
  }

  Tensor through(const Block& block, const Tensor& x, const ForwardContext& context,
                 std::vector<RouterStats>& stats) const {
    return leave(block.unit(), block.forward(enter(block.unit(), x), context, stats));
  }

  Tensor normed(const Tensor& x) const { return rms_norm(x, final_norm, config.rms_norm_eps); }

  // tokens [B, T] -> the final norm's output [B, T, H], of a whole network; the head's unit stays entered.
  Tensor hidden(const Tensor& tokens, const ForwardContext& context, std::vector<RouterStats>& stats) const {
    auto x = embedded(tokens, context.cut);
    for (const auto& block : blocks[0]) x = through(block, x, context, stats);
    x = normed(enter(head_unit(), x));
    if (context.trace != nullptr) context.trace->hidden_states.push_back(x.detach());
    return x;
  }

  // hidden [B, own, H], targets [B, T] of whole rows -> the sum over this process's tokens.
  Tensor loss_sum(const Tensor& hidden, const Tensor& targets, const RowCut& cut) const {
    return vocabulary_cross_entropy(hidden, head, vocabulary_first, cut.of_context(targets),
                                    partition.tensor);
  }

  // V3 eq 21-25: the mean over depths of each depth's loss, all as sums over targets.
  Tensor mtp_sum(Tensor hidden, const Tensor& tokens, const Tensor& targets, const ForwardContext& main,
                 std::vector<RouterStats>& stats) const {
    Tensor sum;
    for (std::size_t d = 0; d < mtp.size(); ++d) {
      const auto shift = static_cast<std::int64_t>(d) + 1, length = tokens.size(1) - shift;
      if (length < 1) break;
      const auto one = main.cut.whole()
                           ? mtp_depth(d, shift, length, hidden, tokens, targets, main, stats)
                           : mtp_cut_depth(d, shift, length, hidden, tokens, targets, main, stats);
      sum = sum.defined() ? sum + one : one;
    }
    return sum.defined() ? sum / static_cast<double>(mtp.size()) : sum;
  }

  // The layer of one depth; returns what the head takes.
  Tensor mtp_through(std::size_t d, const Tensor& hidden, const Tensor& next, const ForwardContext& context,
                     std::vector<RouterStats>& stats, Tensor& output) const {
    const auto unit = mtp[d].unit();
    const auto y = mtp[d].forward(enter(unit, hidden), next, context, stats);
    const auto input = mtp[d].head_input(y);
    output = leave(unit, y);
    return leave(unit, input);
  }

  // The loss of one depth over the `length` tokens that have a token `shift` later; `hidden` becomes its
  // output.
  Tensor mtp_depth(std::size_t d, std::int64_t shift, std::int64_t length, Tensor& hidden,
                   const Tensor& tokens, const Tensor& targets, const ForwardContext& main,
                   std::vector<RouterStats>& stats) const {
    auto context = main;
    context.cos = main.cos.narrow(0, 0, length);
    context.sin = main.sin.narrow(0, 0, length);
    const auto later = mtp_targets(shift, length, targets, main.documents);
    if (main.documents.defined()) context.documents = main.documents.narrow(1, 0, length);
    const auto next = embedded(tokens.narrow(1, shift, length), main.cut);
    const auto input = mtp_through(d, hidden.narrow(1, 0, length), next, context, stats, hidden);
    return loss_sum(input, later, main.cut);
  }

  // The same where rows are cut: they keep their length, and the last `shift` tokens stand for nothing.
  // Nobody attends to them, they have no target, and routers do not count them.
  Tensor mtp_cut_depth(std::size_t d, std::int64_t shift, std::int64_t length, Tensor& hidden,
                       const Tensor& tokens, const Tensor& targets, const ForwardContext& main,
                       std::vector<RouterStats>& stats) const {
    auto context = main;
    context.row_tokens = length;
    context.padding = main.cut.positions.narrow(0, main.cut.first, main.cut.own) >= length;
    const auto filled = [&](const Tensor& x, std::int64_t with) {
      return at::constant_pad_nd(x, {0, shift}, with);
    };
    const auto next = embedded(filled(tokens.narrow(1, shift, length), 0), main.cut);
    const auto input = mtp_through(d, hidden, next, context, stats, hidden);
    return loss_sum(input, filled(mtp_targets(shift, length, targets, main.documents), -100), main.cut);
  }

  static Tensor mtp_targets(std::int64_t shift, std::int64_t length, const Tensor& targets,
                            const Tensor& documents) {
    const auto later = targets.narrow(1, shift, length);
    if (!documents.defined()) return later;
    // The token to predict belongs to another document than the one predicting it.
    return later.masked_fill(documents.narrow(1, 0, length) != documents.narrow(1, shift, length), -100);
  }

  void check_targets(const Tensor& tokens, const Tensor& targets) const {
    require(targets.sizes() == tokens.sizes(), "targets and tokens differ in shape");
    require(at::logical_or(targets == -100, (targets >= 0).logical_and(targets < config.vocab_size))
                .all()
                .item<bool>(),
            "a target is outside the model's vocabulary of {}", config.vocab_size);
  }

  // Sums over layers as they travel: counts, scores, tokens.
  JointSums joint_of(const std::vector<Tensor>& flow) const {
    if (flow.size() < 2) return {};
    const auto experts = config.moe.n_routed_experts;
    const auto tokens = flow[1].detach()[2 * experts].item<double>();
    if (tokens == 0) return {};
    return {flow[1].narrow(0, 0, experts).detach(), flow[1].narrow(0, experts, experts), tokens};
  }
  Tensor joint_flow(const JointSums& sums) const {
    const auto options = at::TensorOptions(wide_type(dtype)).device(device);
    const auto experts = config.moe.n_routed_experts;
    if (!sums.counts.defined()) return at::zeros({2 * experts + 1}, options);
    return at::cat({sums.counts, sums.scores, at::full({1}, sums.tokens, options)});
  }

  // The end of the network: cross-entropy and multi-token prediction.
  void head_losses(const Tensor& x, const StageInput& in, const ForwardContext& context,
                   std::vector<RouterStats>& stats, LossOutput& out) const {
    const auto hidden = normed(enter(head_unit(), x));
    const auto count = (in.targets != -100).sum().clamp_min(1);
    const auto cross_entropy = loss_sum(hidden, in.targets, context.cut) / count;
    out.cross_entropy = cross_entropy.detach();
    out.total = cross_entropy * in.scale;
    if (context.balance.mtp_weight > 0 && !mtp.empty()) {
      const auto sum = mtp_sum(hidden, in.tokens, in.targets, context, stats);
      if (sum.defined()) {
        out.mtp = (sum / count).detach();
        out.total = out.total + sum / count * (context.balance.mtp_weight * in.scale);
      }
    }
    out.total = leave(head_unit(), out.total);
  }

  // x [1, own, H] -> [V], on every process of the stage.
  Tensor logits_of(std::int64_t position, const Tensor& x, const RowCut& cut) const {
    const auto hidden = normed(enter(head_unit(), x))[0];  // [own, H]
    Tensor token;                                          // [1, H]
    if (cut.whole()) {
      token = hidden.narrow(0, position, 1);
    } else {  // the others add nothing
      const auto here = cut.positions.narrow(0, cut.first, cut.own) == position;
      token = (hidden * here.unsqueeze(1)).sum(0, true).contiguous();
      partition.row->all_reduce(token);
    }
    const auto own = widen(project(token, head))[0].contiguous();
    return leave(head_unit(), gather_parts(own, config.vocab_size, partition.tensor));
  }

  StageOutput stage(std::size_t number, const StageInput& in) {
    const StagePart& chunk = chunks.at(number);
    const bool scored = in.logits_of < 0;
    if (chunk.embedding || (scored && chunk.head && config.num_nextn_predict_layers > 0))
      check_tokens(in.tokens, 0);
    if (scored && chunk.head) check_targets(in.tokens, in.targets);
    auto context = row_context(in.tokens.size(1), in.documents);
    context.training = at::GradMode::is_enabled();
    context.recompute = recompute;
    context.balance = balance;

    std::vector<RouterStats> stats;
    auto x = chunk.embedding ? embedded(in.tokens, context.cut) : in.flow.at(0);
    for (const auto& block : blocks[number]) x = through(block, x, context, stats);
    StageOutput out;
    if (!scored) {
      if (chunk.head) {
        out.logits = logits_of(in.logits_of, x, context.cut);
        return out;
      }
      out.flow.push_back(x);
      if (balance.joint_alpha > 0) out.flow.push_back(joint_flow({}));
      return out;
    }
    LossOutput& loss = out.loss;
    if (chunk.head) head_losses(x, in, context, stats, loss);
    JointSums joint;
    if (balance.joint_alpha > 0) {
      joint = joint_of(in.flow);
      add_joint(joint, stats);
    }
    const auto losses = balance_losses(stats, balance, config, chunk.head ? joint : JointSums(), partition);
    const auto add = [&](const Tensor& value, Tensor& part) {
      if (!value.defined()) return;
      part = value.detach();
      const auto weighed = value * in.row_share.value_or(in.scale);
      loss.total = loss.total.defined() ? loss.total + weighed : weighed;
    };
    add(losses.balance, loss.balance);
    add(losses.z, loss.z);
    for (const auto& layer : stats) loss.loads.push_back(router_load(layer));
    if (chunk.head) return out;
    out.flow.push_back(x);
    if (balance.joint_alpha > 0) out.flow.push_back(joint_flow(joint));
    return out;
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
  ensure(impl_->whole(), "logits of a part of a network");
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
  return impl_->leave(impl_->head_unit(), widen(project(hidden, impl_->head)));
}

LossOutput LanguageModel::loss(const Tensor& tokens, const Tensor& targets, const Tensor& documents,
                               double scale, std::optional<double> row_share) {
  ensure(impl_->chunks.size() == 1, "the loss of a part of a network");
  return impl_->stage(0, {tokens, targets, documents, scale, row_share, {}}).loss;
}

StageOutput LanguageModel::stage(std::size_t chunk, const StageInput& input) {
  return impl_->stage(chunk, input);
}

std::vector<Tensor> LanguageModel::empty_flow(std::int64_t rows, std::int64_t tokens) const {
  const auto options = at::TensorOptions(impl_->dtype).device(impl_->device);
  const auto members = size_of(impl_->partition.context) * size_of(impl_->partition.tensor);
  std::vector<Tensor> flow{at::empty({rows, tokens / members, config().hidden_size}, options)};
  if (impl_->balance.joint_alpha > 0)
    flow.push_back(
        at::empty({2 * config().moe.n_routed_experts + 1}, options.dtype(wide_type(impl_->dtype))));
  return flow;
}

std::unique_ptr<KvCache> LanguageModel::make_cache(std::int64_t rows, std::int64_t capacity) const {
  return std::make_unique<KvCache>(impl_->config, rows, capacity, impl_->dtype, impl_->device);
}

}  // namespace sinew
