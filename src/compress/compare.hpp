// How far one model's predictions are from another's.
#pragma once

#include <span>
#include <vector>

#include "compress/layer_runner.hpp"

namespace sinew::compress {

struct Comparison {
  index_t tokens = 0;                          // compared
  double kl = 0;                               // mean over tokens of sum p_base log(p_base / p), nats
  double kl_worst = 0;                         // of the tokens, the 99th percentile
  double same_top = 0;                         // part of the tokens whose most likely next token is the same
  double base_perplexity = 0, perplexity = 0;  // of the text, a token
  std::vector<double> layer_errors;            // after each layer |x - x_base| / |x_base| over all tokens
};

// Runs both models over the text, in windows that do not see one another. They need the same vocabulary and
// number of layers.
Comparison compare_models(const Model& base, const Model& other, const std::vector<TokenId>& tokens,
                          index_t window);

// The same, piece by piece: rows of logits in rising order of their tokens.
class ComparisonSums {
 public:
  ComparisonSums(std::span<const TokenId> text, index_t window, index_t vocab)
      : text_(text), window_(window), vocab_(vocab) {}
  void add(index_t first, index_t count, const float* base, const float* other);
  Comparison result() const;

 private:
  std::span<const TokenId> text_;
  index_t window_, vocab_;
  std::vector<double> kl_;
  double same_ = 0, base_loss_ = 0, loss_ = 0;
  index_t predicted_ = 0;
};

}  // namespace sinew::compress
