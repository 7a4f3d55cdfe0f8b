// The one place where activations meet weights: y[tokens, out] = x[tokens, in] * W^T for every storage type.
// What a product needs of its activations (8-bit rows, say) is made once and shared by all that read them.
#pragma once

#include <span>

#include "engine/weights.hpp"

namespace sinew::engine {

// Rows of activations. Rows up to a multiple of 16 may be read: they must be there.
struct Activations {
  const float* x = nullptr;
  index_t ld = 0, tokens = 0, cols = 0;
};

struct Product {
  const WeightMatrix* w = nullptr;
  float* y = nullptr;  // [tokens, w->rows]; rows up to a multiple of 16 may be written
  index_t ldy = 0;
  const float* bias = nullptr;  // [w->rows] or null
};

// All products of one set of activations.
void linear(const Activations& x, std::span<const Product> products);
inline void linear(const Activations& x, const Product& product) { linear(x, {&product, 1}); }

// Products of many small matrices with activations of their own (the heads of MLA's absorbed projections).
struct HeadProduct {
  Activations x;
  Product product;
};
void linear_each(std::span<const HeadProduct> products);

// A feed-forward network: down (silu(gate x) * up x).
struct SwigluWeights {
  WeightMatrix gate, up, down;  // [width, hidden], [width, hidden], [hidden, width]
};

// One network and the rows it works on.
struct ExpertWork {
  const SwigluWeights* weights = nullptr;
  const std::int32_t* tokens = nullptr;  // [count] rows of the activations; null: 0, 1, ..
  const float* factor = nullptr;         // [count] what each result is multiplied by; null: 1
  index_t count = 0;
};

// y [tokens, hidden] += the results of all networks: gate, up, activation and down as passes over one work
// list. Results are added token by token in the order of the list.
void swiglu_networks(const Activations& x, std::span<const ExpertWork> work, float* y, index_t ldy);

}  // namespace sinew::engine
