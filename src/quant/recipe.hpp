// Which format each tensor of a model gets when one is asked for by name.
#pragma once

#include <string_view>
#include <vector>

#include "quant/model_source.hpp"

namespace sinew {

// `format`, or where rows of `cols` elements are no whole blocks of it, what llama.cpp falls back to.
BlockFormat fitting_format(BlockFormat format, std::int64_t cols);

// Whether a tensor is quantized at all: matrices other than those kept in F32.
bool quantizable(const SourceTensor& tensor);

// `name` is a format (Q4_K: every matrix) or one of llama.cpp's mixtures (Q3_K_M, Q4_K_M, Q5_K_M: more bits
// for output, and for values and down projections of the layers that need them most). Throws UserError
// listing the names it knows.
std::vector<BlockFormat> recipe_formats(const ModelSource& source, std::string_view name);

}  // namespace sinew
