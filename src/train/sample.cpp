#include "train/sample.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/random.hpp"
#include "model/kv_cache.hpp"

namespace sinew {
namespace {

// `logits` [V] on the CPU, fp32.
TokenId choose(const at::Tensor& logits, double temperature, double uniform) {
  if (temperature <= 0) return static_cast<TokenId>(logits.argmax().item<std::int64_t>());
  const at::Tensor sums = at::softmax(logits.to(at::kDouble) / temperature, 0).cumsum(0);
  const auto* const begin = sums.data_ptr<double>();
  const auto* const end = begin + sums.numel();
  return static_cast<TokenId>(std::min(std::upper_bound(begin, end, uniform * end[-1]), end - 1) - begin);
}

}  // namespace

std::string sample_text(LanguageModel& model, const Tokenizer& tokenizer, const std::string& prompt,
                        std::int64_t tokens, double temperature, std::uint64_t seed, at::Device device) {
  const at::NoGradGuard no_grad;
  std::vector<TokenId> ids = tokenizer.encode(prompt, true);
  if (ids.empty()) ids.push_back(tokenizer.bos().value_or(tokenizer.eos().value_or(0)));
  const auto limit = static_cast<std::size_t>(std::min<std::int64_t>(
      model.config().max_position_embeddings, static_cast<std::int64_t>(ids.size()) + tokens));
  const auto cache = model.make_cache(1, static_cast<std::int64_t>(limit));
  const Random random(seed, "sample");
  std::size_t fed = 0;
  while (ids.size() < limit) {
    const std::vector<std::int64_t> fresh(ids.begin() + static_cast<std::ptrdiff_t>(fed), ids.end());
    fed = ids.size();
    const at::Tensor input = at::tensor(fresh, at::kLong).unsqueeze(0).to(device);  // [1, T]
    const at::Tensor logits = model.logits(input, {}, cache.get())[0][-1].to(at::kCPU, at::kFloat);
    const TokenId next = choose(logits.narrow(0, 0, std::min(logits.numel(), tokenizer.vocab_size())),
                                temperature, random.uniform(fed));
    if (tokenizer.eos() == next) break;
    ids.push_back(next);
  }
  return tokenizer.decode(ids, true);
}

}  // namespace sinew
