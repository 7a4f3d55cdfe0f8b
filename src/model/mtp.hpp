// Multi-token prediction (DeepSeek-V3 section 2.2): one more layer for each further token.
#pragma once

#include "model/block.hpp"

namespace sinew {

class MtpLayer {
 public:
  // `depth` 0 predicts the token after next; its tensors are those of model.layers.<num_hidden_layers +
  // depth>.
  MtpLayer(const ModelConfig& config, const ParameterStore& parameters, std::int64_t depth);

  // hidden [B, T', H]: the final-norm output of the main model (depth 0) or the output of the depth before;
  // embedded [B, T', H]: embeddings of the tokens depth+1 later. Returns the layer's output [B, T', H].
  // As in the released weights, eh_proj takes the normalised embedding first, then the normalised hidden
  // state.
  at::Tensor forward(const at::Tensor& hidden, const at::Tensor& embedded, const ForwardContext& context,
                     std::vector<RouterStats>& stats) const;
  // What the shared head takes: shared_head.norm of the layer's output.
  at::Tensor head_input(const at::Tensor& output) const;
  std::size_t unit() const { return block_.unit(); }

 private:
  double eps_;
  at::Tensor embedding_norm_, hidden_norm_, projection_, head_norm_;
  Block block_;
};

}  // namespace sinew
