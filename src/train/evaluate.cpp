#include "train/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numbers>

#include "base/signals.hpp"
#include "train/batch.hpp"

namespace sinew {

std::optional<Evaluation> evaluate(LanguageModel& model, const Loader& loader, std::int64_t samples,
                                   std::int64_t rows, bool mask_documents, at::Device device) {
  const at::NoGradGuard no_grad;
  const auto all = static_cast<std::int64_t>(loader.samples_per_epoch());
  samples = samples == 0 ? all : std::min(all, samples);
  Evaluation result;
  double nats = 0;
  for (std::int64_t first = 0; first < samples; first += rows) {
    if (stop_requested() != 0) return std::nullopt;
    const std::int64_t count = std::min(rows, samples - first);
    const TokenBatch batch = loader.get(static_cast<std::uint64_t>(first), count);
    const BatchTensors tensors = batch_tensors(batch, 0, count, mask_documents, device);
    const LossOutput loss = model.loss(tensors.tokens, tensors.targets, tensors.documents);
    nats += loss.cross_entropy.item<double>() * static_cast<double>(tensors.counted);
    result.tokens += tensors.counted;
  }
  result.loss = nats / static_cast<double>(std::max<std::int64_t>(1, result.tokens));
  result.bits_per_byte = result.loss * static_cast<double>(loader.tokens()) /
                         (std::numbers::ln2 * static_cast<double>(loader.bytes()));
  return result;
}

}  // namespace sinew
