// A model run layer by layer over a whole text at once: what stands between two layers is held, one layer's
// weights are in use. Calibration, sensitivities and comparisons work this way, so that memory holds the
// states of the text and not the model.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/layers.hpp"
#include "text/tokenizer.hpp"

namespace sinew::compress {

using engine::Layer;
using engine::Model;
using engine::WeightMatrix;

class LayerRunner {
 public:
  // The text is cut into windows of `window` tokens that do not see one another (the last may be shorter).
  // Throws UserError when it is empty or its ids do not fit the model.
  LayerRunner(const ModelConfig& config, RopeLayout rope_layout, std::vector<TokenId> tokens, index_t window);

  index_t tokens() const { return static_cast<index_t>(tokens_.size()); }
  index_t window() const { return window_; }
  std::span<const TokenId> text() const { return tokens_; }
  std::vector<float>& states() { return states_; }  // [tokens, hidden]
  const std::vector<float>& states() const { return states_; }

  void embed(const WeightMatrix& embedding);
  // One decoder layer over all windows; with `keep` the states become its output. MLA runs in absorbed form,
  // so that the tap sees what each head's halves of kv_b_proj are multiplied with.
  void run(const Layer& layer, engine::ForwardTap* tap, bool keep);
  // Logits of every token: sink(first token, [count, vocab]) in rising order. The tap sees the head's input.
  void logits(const std::vector<float>& final_norm, const WeightMatrix& head, engine::ForwardTap* tap,
              const std::function<void(index_t first, index_t count, const float* logits)>& sink) const;
  // The same of up to 64 tokens.
  void logits_of(index_t first, index_t count, const std::vector<float>& final_norm, const WeightMatrix& head,
                 const std::function<void(const float* logits)>& sink,
                 engine::ForwardTap* tap = nullptr) const;

 private:
  Model shell_;  // config and rotary layout, without weights
  std::vector<TokenId> tokens_;
  index_t window_;
  std::vector<float> states_;
  std::vector<float> cos_, sin_;  // [window, rope / 2]
  std::shared_ptr<engine::KvPool> pool_;
  engine::LayerMemory memory_;
};

}  // namespace sinew::compress
