#include "model/generate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "base/random.hpp"
#include "model/kv_cache.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

// The logits [V] of the last position after feeding `ids` [T].
at::Tensor last_logits(LanguageModel& model, std::span<const TokenId> ids, KvCache* cache,
                       at::Device device) {
  const std::vector<std::int64_t> wide(ids.begin(), ids.end());
  const auto logits = model.logits(at::tensor(wide, at::kLong).unsqueeze(0).to(device), {}, cache);
  return logits[0][logits.size(1) - 1].to(at::kCPU, at::kFloat).contiguous();
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  require(std::isfinite(options.temperature) && options.temperature >= 0, "temperature is {}, not 0 or more",
          options.temperature);
  require(options.top_k >= 0, "top-k is {}, not 0 or more", options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, "top-p is {}, not above 0 and at most 1", options.top_p);
}

std::int64_t sample_token(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();
  if (options.temperature == 0) return likeliest;
  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k)));

  std::vector<double> weights;
  for (const auto id : order) {
    weights.push_back(std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / options.temperature));
  }
  double total = std::accumulate(weights.begin(), weights.end(), 0.0), sum = 0;
  std::size_t kept = 0;
  while (kept < weights.size() && (kept == 0 || sum < options.top_p * total)) sum += weights[kept++];
  total = sum;
  sum = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    sum += weights[i];
    if (uniform * total < sum) return order[i];
  }
  return order[kept - 1];
}

std::string_view finish_name(Finish finish) {
  switch (finish) {
    case Finish::end_token:
      return "stop";
    case Finish::context_full:
      return "context_full";
    case Finish::stopped:
      return "stopped";
    default:
      return "length";
  }
}

Generation generate(const NextLogits& next_logits, std::int64_t positions, const std::vector<TokenId>& prompt,
                    const GenerateOptions& options, std::span<const std::int64_t> ends,
                    const std::function<bool(TokenId)>& each) {
  check_sampling(options.sampling);
  require(!prompt.empty(), "nothing to go on from: the prompt is empty");
  require(static_cast<std::int64_t>(prompt.size()) <= positions,
          "the prompt has {} tokens, but the model's max_position_embeddings is {}", prompt.size(),
          positions);
  const at::NoGradGuard no_grad;
  const Random random(options.sampling.seed, "generate");
  Generation out;
  std::vector<TokenId> ids = prompt;
  while (static_cast<std::int64_t>(out.tokens.size()) < options.max_tokens) {
    if (static_cast<std::int64_t>(ids.size()) > positions) {
      out.finish = Finish::context_full;
      break;
    }
    const auto logits = next_logits(ids);
    const std::span<const float> row(logits.data_ptr<float>(), static_cast<std::size_t>(logits.numel()));
    const auto next = sample_token(row, options.sampling, random.uniform(out.tokens.size()));
    if (std::find(ends.begin(), ends.end(), next) != ends.end()) {
      out.finish = Finish::end_token;
      break;
    }
    ids.push_back(static_cast<TokenId>(next));
    out.tokens.push_back(ids.back());
    if (each && !each(ids.back())) {
      out.finish = Finish::stopped;
      break;
    }
  }
  return out;
}

Generation generate(LanguageModel& model, const std::vector<TokenId>& prompt, const GenerateOptions& options,
                    std::span<const std::int64_t> ends, at::Device device,
                    const std::function<bool(TokenId)>& each) {
  const auto most = model.config().max_position_embeddings;
  const auto wanted = static_cast<std::int64_t>(prompt.size()) + options.max_tokens;
  const auto cache = options.cache ? model.make_cache(1, std::min(most, wanted)) : nullptr;
  std::size_t fed = 0;
  const auto next = [&](std::span<const TokenId> ids) {
    const auto logits = last_logits(model, ids.subspan(cache ? fed : 0), cache.get(), device);
    fed = ids.size();
    return logits;
  };
  return generate(next, most, prompt, options, ends, each);
}

}  // namespace sinew
