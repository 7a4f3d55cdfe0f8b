// `sinew quantize`: a whole model into one GGUF file of a chosen format or size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quant/gguf_export.hpp"
#include "quant/model_source.hpp"

namespace sinew {

struct QuantizeOptions {
  std::filesystem::path source, out;
  std::string type;                   // a recipe (quant/recipe.hpp); or one of
  std::optional<double> bits;         // bits per weight over all tensors
  std::optional<std::uint64_t> size;  // bytes of the file
  std::filesystem::path report;       // JSON; empty: none
  GgufOptions gguf;
  bool force = false;
};

struct TensorReport {
  std::string name;
  BlockFormat format = BlockFormat::f32;
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;
  double relative_error = 0;  // root of sum (value - weight)^2 / sum weight^2
};

struct QuantizeReport {
  std::vector<TensorReport> tensors;
  std::uint64_t file_bytes = 0;
  std::int64_t elements = 0;
  double bits_per_weight = 0;
  std::string json() const;
};

// Streams tensor by tensor on all threads; memory does not grow with the model. Throws UserError when no
// choice of formats reaches the size.
QuantizeReport quantize_model(const QuantizeOptions& options);

// Throws UserError unless exactly one of type, bits, size (and `another_way`) is given and `out` may be
// written.
void check_quantize_options(const QuantizeOptions& options, bool another_way = false);

// --- The parts.

std::uint64_t tensor_bytes(const SourceTensor& tensor, BlockFormat format);
// What the allocation may choose for a tensor, by rising size; F32 alone where it is not quantized.
std::vector<BlockFormat> candidate_formats(const SourceTensor& tensor);
// Bytes of tensor data that bits or size allow.
std::uint64_t byte_budget(const QuantizeOptions& options, const ModelSource& source);

struct TensorChoices {
  std::vector<BlockFormat> formats;
  std::vector<double> costs;  // of each
};
// One format for each tensor, the sum of costs least within the budget. Throws UserError when none is small
// enough.
std::vector<BlockFormat> pick_formats(const ModelSource& source, const std::vector<TensorChoices>& choices,
                                      std::uint64_t budget);

// Writes the file with the bytes that `encode` makes (empty: rounding), and measures the errors of the
// weights.
QuantizeReport write_quantized(const ModelSource& source, const std::vector<BlockFormat>& formats,
                               const std::filesystem::path& out, const EncodeRows& encode);

// Squared error of rounding a tensor to `format`, relative to its squared size, from up to 64 rows spread
// over it.
double sampled_error(const SourceTensor& tensor, BlockFormat format);

// "9G", "4.5GiB", "700M" in bytes (powers of 1000; GiB and MiB of 1024).
std::uint64_t parse_size(const std::string& text);

}  // namespace sinew
