#include "train/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numbers>
#include <utility>
#include <vector>

#include "base/signals.hpp"
#include "parallel/partition_of.hpp"
#include "parallel/pipeline.hpp"
#include "train/batch.hpp"

namespace sinew {

namespace {

// Micro-batches of one forward pass through the pipeline (or through the whole network, for one stage).
class EvaluationStages : public StageModule {
 public:
  EvaluationStages(LanguageModel& model, std::vector<BatchTensors> parts)
      : model_(model), parts_(std::move(parts)) {}
  StageFlow empty_flow(int micro_batch) const override {
    const auto& tokens = parts_[static_cast<std::size_t>(micro_batch)].tokens;
    return model_.empty_flow(tokens.size(0), tokens.size(1));
  }
  StageResult forward(int chunk, int micro_batch, const StageFlow& in) override {
    const auto& p = parts_[static_cast<std::size_t>(micro_batch)];
    auto out = model_.stage(static_cast<std::size_t>(chunk), {p.tokens, p.targets, p.documents, 1, {}, in});
    if (out.loss.cross_entropy.defined())
      nats += out.loss.cross_entropy.item<double>() * static_cast<double>(p.counted);
    return {std::move(out.flow), {}};
  }
  double nats = 0;  // this process's part

 private:
  LanguageModel& model_;
  std::vector<BatchTensors> parts_;
};

// The nats of a batch's rows that fall to this process; `counted` likewise.
double nats_of(LanguageModel& model, std::vector<BatchTensors> parts, Mesh* mesh) {
  EvaluationStages stages(model, std::move(parts));
  const bool piped = mesh != nullptr && mesh->extent(Axis::pipeline) > 1;
  if (!piped) {
    stages.forward(0, 0, {});
    return stages.nats;
  }
  run_pipeline_forward(schedule_of(mesh->layout(), 1), mesh->group(Axis::pipeline), stages);
  return stages.nats;
}

}  // namespace

std::optional<Evaluation> evaluate(LanguageModel& model, const Loader& loader, std::int64_t samples,
                                   std::int64_t rows, bool mask_documents, at::Device device, Mesh* mesh) {
  const at::NoGradGuard no_grad;
  const auto all = static_cast<std::int64_t>(loader.samples_per_epoch());
  const std::int64_t replicas = mesh == nullptr ? 1 : mesh->batch()->size();
  const std::int64_t place = mesh == nullptr ? 0 : mesh->batch()->rank();
  samples = samples == 0 ? all : std::min(all, samples);
  if (replicas > 1) rows = std::max<std::int64_t>(1, rows / replicas);
  Evaluation result;
  double nats = 0;
  for (std::int64_t first = 0; first < samples; first += rows * replicas) {
    if (mesh == nullptr && stop_requested() != 0) return std::nullopt;
    // A process beyond the end goes along with a row that does not count.
    const auto own = std::min(first + place * rows, samples), count = std::min(rows, samples - own);
    const auto begin = count > 0 ? own : 0;
    const auto taken = std::max<std::int64_t>(1, count);
    const TokenBatch batch = loader.get(static_cast<std::uint64_t>(begin), taken);
    std::vector<BatchTensors> parts{batch_tensors(batch, 0, taken, mask_documents, device)};
    if (count <= 0) parts[0].counted = 0;
    result.tokens += parts[0].counted;
    nats += nats_of(model, std::move(parts), mesh);
  }
  if (mesh != nullptr) {
    const auto sums = at::tensor({nats, static_cast<double>(result.tokens)}, at::kDouble).to(device);
    mesh->world()->all_reduce(sums);
    nats = sums[0].item<double>();
    // Every process of a stage and row counted its rows' tokens.
    result.tokens = static_cast<std::int64_t>(sums[1].item<double>()) * replicas / mesh->size();
  }
  result.loss = nats / static_cast<double>(std::max<std::int64_t>(1, result.tokens));
  result.bits_per_byte = result.loss * static_cast<double>(loader.tokens()) /
                         (std::numbers::ln2 * static_cast<double>(loader.bytes()));
  return result;
}

}  // namespace sinew
