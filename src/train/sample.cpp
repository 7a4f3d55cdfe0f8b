#include "train/sample.hpp"

#include <ATen/ATen.h>

#include "parallel/partition_of.hpp"
#include "parallel/pipeline.hpp"

namespace sinew {
namespace {

// One row of text on its way through the stages.
class TextStages : public StageModule {
 public:
  TextStages(LanguageModel& model, at::Tensor tokens, std::int64_t last)
      : model_(model), tokens_(std::move(tokens)), last_(last) {}
  StageFlow empty_flow(int) const override { return model_.empty_flow(1, tokens_.size(1)); }
  StageResult forward(int chunk, int, const StageFlow& in) override {
    StageInput input;
    input.tokens = tokens_;
    input.flow = in;
    input.logits_of = last_;
    auto out = model_.stage(static_cast<std::size_t>(chunk), input);
    if (out.logits.defined()) logits = out.logits;
    return {std::move(out.flow), {}};
  }
  at::Tensor logits;  // of the rank that holds the last stage

 private:
  LanguageModel& model_;
  at::Tensor tokens_;  // [1, T]
  std::int64_t last_;
};

// Rows of a multiple of so many tokens can be cut.
std::int64_t cut_of(const Layout& layout) { return layout.row_size() * (layout.context > 1 ? 2 : 1); }

// Rows are filled up with tokens that nobody attends to, to a length that the layout can cut.
at::Tensor next_logits(LanguageModel& model, std::span<const TokenId> ids, at::Device device, Mesh& mesh) {
  const std::int64_t cut = cut_of(mesh.layout());
  const auto length = static_cast<std::int64_t>(ids.size()), filled = (length + cut - 1) / cut * cut;
  const auto tokens = at::zeros({1, filled}, at::kLong);
  std::copy(ids.begin(), ids.end(), tokens.data_ptr<std::int64_t>());
  TextStages stages(model, tokens.to(device), length - 1);
  const auto pipeline = mesh.group(Axis::pipeline);
  const auto schedule = schedule_of(mesh.layout(), 1);
  run_pipeline_forward(schedule, pipeline, stages);
  if (pipeline->size() > 1) {
    if (!stages.logits.defined())
      stages.logits = at::empty({model.config().vocab_size}, at::TensorOptions(at::kFloat).device(device));
    pipeline->broadcast(stages.logits, schedule.rank_of(schedule.stages() - 1));
  }
  return stages.logits.to(at::kCPU, at::kFloat).contiguous();
}

}  // namespace

Generation sample_text(LanguageModel& model, const std::vector<TokenId>& prompt,
                       const GenerateOptions& options, std::span<const std::int64_t> ends, at::Device device,
                       Mesh* mesh, const std::function<bool(TokenId)>& each) {
  if (mesh == nullptr || (mesh->extent(Axis::pipeline) == 1 && mesh->layout().row_size() == 1))
    return generate(model, prompt, options, ends, device, each);
  const std::int64_t cut = cut_of(mesh->layout());
  const auto positions = model.config().max_position_embeddings / cut * cut;
  const auto next = [&](std::span<const TokenId> ids) { return next_logits(model, ids, device, *mesh); };
  return generate(next, positions, prompt, options, ends, each);
}

}  // namespace sinew
