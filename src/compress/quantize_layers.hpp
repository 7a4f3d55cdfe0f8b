// A whole model quantized layer by layer on calibration text: the inputs of each layer are those that the
// layers before it, already quantized, make, so that later layers take up what earlier ones lost.
#pragma once

#include "compress/block_store.hpp"
#include "compress/calibrate.hpp"
#include "quant/gptq.hpp"

namespace sinew::compress {

struct LayerLoss {
  double gptq = 0, rounding = 0;  // sums of trace(E H E^T) for one token over the layer's matrices
};

// Quantizes every unit of every layer, and the head, with GPTQ into `store`; sets done[tensor]. Second
// moments of as many experts are held at once as `memory` bytes allow.
std::vector<LayerLoss> gptq_layers(const Model& model, const ModelSource& source, const TensorPlaces& places,
                                   const std::vector<BlockFormat>& formats, LayerRunner& runner,
                                   std::size_t memory, BlockStore& store, std::vector<bool>& done);

// Rows of one unit into `out`: GPTQ where a factor is given and the format has blocks, else rounding weighed
// by `importance` (may be null). On all threads; holds the unit's rows piece by piece.
GptqLoss quantize_unit(const SourceTensor& tensor, index_t first_row, index_t rows, BlockFormat format,
                       const GptqFactor* factor, const float* importance, std::byte* out);

}  // namespace sinew::compress
