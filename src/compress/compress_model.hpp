// `sinew quantize --calibrate`: a model quantized with what a text tells about it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compress/calibrate.hpp"
#include "compress/compare.hpp"
#include "quant/quantize_model.hpp"

namespace sinew::compress {

enum class Method { round, gptq };

struct CompressOptions {
  QuantizeOptions quantize;  // its report: JSON, or one HTML page where the name ends in .html
  std::filesystem::path text;
  std::filesystem::path eval_text;   // empty: the last tenth of `text`, which calibration leaves out
  std::filesystem::path statistics;  // read where it is there, else written; empty: not kept
  Method method = Method::gptq;
  std::optional<double> max_kl;  // nats a token
  index_t window = 512;
  index_t tokens = 16384;          // of calibration
  index_t sensitivity_tokens = 0;  // 0: as many as take a few minutes, 512 to 4096
  index_t eval_tokens = 8192;
  std::size_t memory = std::size_t{3} << 29;  // bytes of second moments
};

struct CompressReport {
  QuantizeReport weights;
  Method method = Method::gptq;
  index_t calibration_tokens = 0;
  std::optional<double> predicted_kl;  // by the sensitivities
  Comparison quality;
  std::vector<double> layer_gain;  // GPTQ: loss of each layer's outputs relative to rounding's
  std::vector<RareExpert> rare;
  std::string json() const;
  std::string html(const std::string& title) const;
};

// Memory is that of the text's states, of `memory` and of one tensor, whatever the model. Throws UserError
// when no choice of formats reaches the size or the divergence.
CompressReport compress_model(const CompressOptions& options);

// `count` tokens of [first, last) of a text, as whole windows spread evenly over it.
std::vector<TokenId> spread_windows(const std::vector<TokenId>& text, index_t first, index_t last,
                                    index_t window, index_t count);

}  // namespace sinew::compress
