// Writes the GGUF file of a model, tensor by tensor.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "quant/model_source.hpp"

namespace sinew {

// Makes the stored bytes of `count` rows of tensor `index`, from row `first` on. Called from several threads.
using EncodeRows = std::function<void(std::size_t index, const float* rows, std::int64_t first,
                                      std::int64_t count, std::byte* out)>;

// `formats[i]` is that of source.tensors[i]. Shows progress; leaves nothing behind when stopped by a signal.
void export_gguf(const ModelSource& source, const std::vector<BlockFormat>& formats,
                 const std::filesystem::path& out, const EncodeRows& encode);

// llama.cpp's number for files mostly of this format (general.file_type).
std::uint32_t gguf_file_type(BlockFormat format);

// Exact or nearest-even encoding into F32, F16 and BF16.
void encode_float(BlockFormat format, const float* values, std::size_t count, std::byte* out);

}  // namespace sinew
