// What each format would cost each tensor, measured: the KL divergence of the model's predictions when that
// tensor alone is rounded.
#pragma once

#include "compress/calibrate.hpp"
#include "quant/quantize_model.hpp"

namespace sinew::compress {

// The importance of columns for the rows of each tensor.
class ImportanceTable {
 public:
  ImportanceTable(const Model& model, const ModelSource& source, const TensorPlaces& places,
                  const Statistics& statistics);
  // Of row `row` of a tensor; null where nothing is known. `end` is the first row that it does not hold for.
  const float* find(std::size_t tensor, index_t row, index_t* end) const;
  // Rows rounded with their importance.
  void quantize(const ModelSource& source, std::size_t tensor, BlockFormat format, const float* rows,
                index_t first, index_t count, std::byte* out) const;

 private:
  struct Range {
    index_t first, rows;
    const std::vector<float>* values;
  };
  std::vector<std::vector<Range>> ranges_;  // of each tensor, rising
};

// Formats that are measured; the others lie between or beyond them by their errors.
inline constexpr BlockFormat kMeasuredFormats[] = {BlockFormat::q2_k, BlockFormat::q4_k};

// Experts with tensors of their own are measured apart in layers of up to this many; in larger ones all
// gates, all ups and all downs of a layer together, and what they cost is shared out by each expert's error
// in the layer's output: its error weighed by the moments of its inputs, times the tokens that came by it.
inline constexpr std::size_t kMeasuredApart = 16;

// Fills statistics.sensitivities for every tensor that has a choice and was not measured yet.
void measure_sensitivities(const Model& model, const ModelSource& source, const TensorPlaces& places,
                           LayerRunner& runner, Statistics& statistics);

bool sensitivities_missing(const ModelSource& source, const Statistics& statistics);

// Costs in nats a token of all candidates of all tensors: between the measured formats by interpolation of
// the logarithms over the tensor's error under rounding, beyond them in proportion to it (KL is quadratic in
// small errors, and so is that error).
std::vector<TensorChoices> tensor_choices(const ModelSource& source, const ImportanceTable& importance,
                                          const Statistics& statistics);

// Sum over the tensors of the costs of these formats.
double predicted_kl(const std::vector<TensorChoices>& choices, const std::vector<BlockFormat>& formats);

}  // namespace sinew::compress
