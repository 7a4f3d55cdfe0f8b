// The layers of a forward pass over a batch: rows of several sequences one after another, each with its own
// position and cache.
#pragma once

#include <span>
#include <vector>

#include "engine/attention.hpp"
#include "engine/model.hpp"
#include "kernels/gate.hpp"
#include "kernels/routing.hpp"
#include "kernels/workspace.hpp"

namespace sinew::engine {

// Which form of MLA: expanded where many queries meet a cache, absorbed where few do (whichever takes fewer
// operations), or always one of them.
enum class LatentForm { automatic, absorbed, expanded };

// Listens to a forward pass: calibration and measurements. Called on the calling thread, before the product.
class ForwardTap {
 public:
  virtual ~ForwardTap() = default;
  virtual void product(const WeightMatrix& /*w*/, const Activations& /*x*/) {}
  // The chosen experts of each row (`logits` [tokens, experts], chosen and weight [tokens, top_k]).
  virtual void routing(index_t /*layer*/, index_t /*tokens*/, const float* /*logits*/,
                       const std::int64_t* /*chosen*/, const float* /*weight*/) {}
  // A feed-forward network and the rows of x [tokens, hidden] it works on.
  virtual void network(const ExpertWork& /*work*/, const Activations& /*x*/) {}
};

struct Batch {
  index_t tokens = 0;
  std::span<const QueryRun> runs;
  const float *cos = nullptr, *sin = nullptr;  // [tokens, rope / 2]
  LatentForm form = LatentForm::automatic;
  ForwardTap* tap = nullptr;
};

// What passes keep to work without allocating.
struct LayerMemory {
  ExpertRows rows;
  std::vector<ExpertWork> work;
  std::vector<HeadProduct> heads;
  std::vector<Product> products;
  std::vector<std::int32_t> wanted;  // experts to fetch
  std::vector<float> factors;        // weights of the rows sorted by expert
};

// Memory for [tokens, columns] with the rows that products of any part of them may read beyond the last.
inline float* take_rows(Workspace::Frame& frame, index_t tokens, index_t columns) {
  return frame.take<float>(static_cast<std::size_t>(round_up(tokens, 16) * columns + 16 * columns));
}

void apply(const Batch& batch, const Activations& x, std::span<const Product> products);
inline void apply(const Batch& batch, const Activations& x, const Product& product) {
  apply(batch, x, {&product, 1});
}

// out [tokens, hidden] = o(attention(x)); x [tokens, hidden] is normalised. Writes the tokens' keys and
// values into their sequences' caches as layer `index`.
void attention_layer(const Model& model, const Layer& layer, index_t index, const Batch& batch,
                     const float* x, LayerMemory& memory, float* out);

// y [tokens, hidden] += feed_forward(x); x is normalised.
void feed_forward_layer(const Model& model, const Layer& layer, index_t index, const Batch& batch,
                        const float* x, LayerMemory& memory, float* y);

// One whole decoder layer: x [tokens, hidden] in place.
void decoder_layer(const Model& model, const Layer& layer, index_t index, const Batch& batch,
                   LayerMemory& memory, float* x);

// y = norm(x) * weight, rows of `n` with row strides ld_x and n.
void rms_norm(index_t rows, index_t n, const float* x, index_t ld_x, const std::vector<float>& weight,
              double eps, float* y);

}  // namespace sinew::engine
