#include "quant/model_source.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "quant/convert.hpp"
#include "quant/gguf_config.hpp"
#include "quant/gguf_tokenizer.hpp"

namespace sinew {
namespace {

BlockFormat format_of(DType dtype) {
  if (dtype == DType::F16) return BlockFormat::f16;
  if (dtype == DType::BF16 || dtype == DType::F8_E4M3 || dtype == DType::F8_E5M2) return BlockFormat::bf16;
  return BlockFormat::f32;
}

std::string model_name(const std::filesystem::path& path) {
  const std::string name = std::filesystem::weakly_canonical(path).filename().string();
  return name.empty() ? "model" : name;
}

ModelSource open_hf(const std::filesystem::path& path, const GgufOptions& options) {
  const auto weights = std::make_shared<ModelWeights>(path);
  ModelSource out;
  out.files = weights;
  out.config = load_model_config(path);
  out.metadata = gguf_metadata(out.config, model_name(path), options);
  add_tokenizer_metadata(path, out.config, out.metadata);
  for (const GgufSpec& spec : gguf_specs(out.config, options)) {
    SourceTensor tensor{.name = spec.name, .shape = spec.shape, .fp32 = spec.fp32};
    tensor.rows = gguf_tensor_rows(spec, out.config, [&](const TensorSpec& source) {
      return hf_rows(*weights, source.name, source.shape);
    });
    tensor.stored = format_of(weights->find(spec.sources[0].name)->dtype);
    out.tensors.push_back(std::move(tensor));
  }
  if (out.config.llama3) {
    SourceTensor factors{.name = "rope_freqs.weight", .shape = {out.config.rope_dim() / 2}, .fp32 = true};
    factors.rows = {1, out.config.rope_dim() / 2,
                    [values = llama3_rope_factors(out.config)](std::int64_t, std::int64_t count, float* to) {
                      if (count > 0) std::copy(values.begin(), values.end(), to);
                    }};
    out.tensors.push_back(std::move(factors));
  }
  return out;
}

// The experts stacked in a tensor, each as one of its own.
void add_split(const SourceTensor& stacked, std::vector<SourceTensor>& out) {
  const std::string base = stacked.name.substr(0, stacked.name.find("_exps"));
  const std::int64_t experts = stacked.shape[2], rows = stacked.rows.rows / experts;
  for (std::int64_t e = 0; e < experts; ++e) {
    SourceTensor tensor{.name = fmt::format("{}.{}.weight", base, e),
                        .shape = {stacked.shape[0], stacked.shape[1]},
                        .stored = stacked.stored};
    tensor.rows = {
        rows, stacked.rows.cols,
        [all = stacked.rows, first_row = e * rows](std::int64_t first, std::int64_t count, float* to) {
          all.read(first_row + first, count, to);
        }};
    out.push_back(std::move(tensor));
  }
}

ModelSource open_gguf(const std::filesystem::path& path, const GgufOptions& options) {
  const auto file = std::make_shared<Gguf>(path);
  ModelSource out;
  out.files = file;
  out.config = gguf_model_config(*file);
  for (std::size_t i = 0; i < file->metadata().size(); ++i) {
    const std::string& key = file->metadata()[i].first;
    if (key == "general.alignment" || key == "general.file_type" || key.starts_with("split.")) continue;
    out.metadata.set_raw(key, file->raw_metadata(i));
  }
  for (const GgufTensor& tensor : file->tensors()) {
    SourceTensor source{.name = tensor.name, .shape = tensor.shape};
    source.rows = gguf_rows(*file, tensor);
    source.stored = find_block_format(tensor.type)->format;
    source.fp32 = tensor.shape.size() < 2 || tensor.name.ends_with("ffn_gate_inp.weight");
    if (options.split_experts && tensor.shape.size() == 3 && tensor.name.ends_with("_exps.weight"))
      add_split(source, out.tensors);
    else
      out.tensors.push_back(std::move(source));
  }
  return out;
}

}  // namespace

ModelSource open_model_source(const std::filesystem::path& path, const GgufOptions& options) {
  const SourceFormat format = detect_format(path);
  require(format != SourceFormat::llama2c,
          "{}: a llama2.c checkpoint; turn it into a Hugging Face directory first (sinew convert)",
          path.string());
  return format == SourceFormat::hf ? open_hf(path, options) : open_gguf(path, options);
}

}  // namespace sinew
