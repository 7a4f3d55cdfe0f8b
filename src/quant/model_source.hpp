// Any model that Sinew reads, seen as the tensors and metadata of a GGUF file: what `sinew convert` and
// `sinew quantize` write from, and what the calibration measures.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "config/model_config.hpp"
#include "kernels/block_formats.hpp"
#include "quant/gguf_names.hpp"
#include "quant/row_source.hpp"
#include "storage/gguf_writer.hpp"

namespace sinew {

struct SourceTensor {
  std::string name;
  std::vector<std::int64_t> shape{};  // fastest dimension first
  bool fp32 = false;                  // F32 in every file
  BlockFormat stored =
      BlockFormat::f32;  // the format that holds what the source has, exactly or nearly (FP8: BF16)
  RowSource rows{};
  std::int64_t elements() const { return rows.rows * rows.cols; }
};

struct ModelSource {
  ModelConfig config;
  GgufMetadata metadata;  // with the tokenizer, without general.file_type
  std::vector<SourceTensor> tensors;
  std::shared_ptr<void> files;  // what the rows are read from
};

// `path` is a Hugging Face directory or a GGUF file (of which the options change nothing but split_experts).
ModelSource open_model_source(const std::filesystem::path& path, const GgufOptions& options = {});

}  // namespace sinew
