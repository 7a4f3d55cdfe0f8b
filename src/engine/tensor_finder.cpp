#include "engine/tensor_finder.hpp"

#include <map>
#include <utility>

#include "base/error.hpp"
#include "quant/convert.hpp"
#include "quant/gguf_config.hpp"
#include "quant/gguf_names.hpp"
#include "storage/gguf.hpp"
#include "storage/safetensors.hpp"

namespace sinew::engine {
namespace {

namespace fs = std::filesystem;

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

class HfTensors : public TensorFinder {
 public:
  explicit HfTensors(const fs::path& path)
      : path_(path.string()),
        config_(load_model_config(path)),
        weights_(std::make_shared<ModelWeights>(path)) {
    for (const TensorSpec& spec : tensor_specs(config_)) shapes_[spec.name] = spec.shape;
  }

  std::optional<WeightMatrix> find(const std::string& name) const override {
    const TensorInfo* info = weights_->find(name);
    if (info == nullptr) return std::nullopt;
    const auto& shape = shapes_.at(name);
    require(info->shape == shape, "{}: tensor '{}' has shape {}, config.json asks for {}", path_, name,
            shape_text(info->shape), shape_text(shape));
    WeightMatrix w{.name = name, .rows = shape.size() == 1 ? 1 : shape[0], .cols = shape.back()};
    set_type(info->dtype, w);
    w.data = weights_->data(name).data();
    w.row_bytes = static_cast<std::size_t>(w.cols) * dtype_size(info->dtype);
    if (w.storage != Storage::blocks) find_scales(w);
    return w;
  }
  std::optional<WeightMatrix> key_b(const std::string&) const override { return std::nullopt; }
  std::optional<WeightMatrix> value_b(const std::string&) const override { return std::nullopt; }
  const ModelConfig& config() const override { return config_; }
  RopeLayout rope_layout() const override { return config_.rope_layout; }
  std::shared_ptr<const void> files() const override { return weights_; }
  std::vector<const MappedFile*> mapped() const override {
    std::vector<const MappedFile*> out;
    for (const Safetensors& file : weights_->files()) out.push_back(&file.file());
    return out;
  }

 private:
  void set_type(DType dtype, WeightMatrix& w) const {
    switch (dtype) {
      case DType::F32:
        w.format = BlockFormat::f32;
        return;
      case DType::F16:
        w.format = BlockFormat::f16;
        return;
      case DType::BF16:
        w.format = BlockFormat::bf16;
        return;
      case DType::F8_E4M3:
        w.storage = Storage::f8_e4m3;
        return;
      case DType::F8_E5M2:
        w.storage = Storage::f8_e5m2;
        return;
      default:
        fail("{}: tensor '{}' is of type {}, which the engine does not compute with", path_, w.name,
             dtype_name(dtype));
    }
  }

  void find_scales(WeightMatrix& w) const {
    const std::string name = w.name + "_scale_inv";
    const TensorInfo* info = weights_->find(name);
    if (info == nullptr) return;
    const std::vector<std::int64_t> shape{(w.rows + kFp8Block - 1) / kFp8Block,
                                          (w.cols + kFp8Block - 1) / kFp8Block};
    require(info->shape == shape, "{}: tensor '{}' has shape {}, expected {}", path_, name,
            shape_text(info->shape), shape_text(shape));
    const auto scales = std::make_shared<std::vector<float>>(static_cast<std::size_t>(info->elements()));
    to_float(info->dtype, weights_->data(name).data(), scales->data(), scales->size());
    w.scales = scales->data();
    w.owner = scales;
  }

  std::string path_;
  ModelConfig config_;
  std::shared_ptr<ModelWeights> weights_;
  std::map<std::string, std::vector<std::int64_t>> shapes_;
};

class GgufTensors : public TensorFinder {
 public:
  explicit GgufTensors(const fs::path& path)
      : file_(std::make_shared<Gguf>(path)), config_(gguf_model_config(*file_)) {
    require(!file_->metadata_only(), "{}: holds metadata only, no weights", path.string());
    if (config_.moe.n_routed_experts > 0)
      for (const GgufSpec& spec : gguf_specs(config_, {.split_experts = true, .mtp = true}))
        if (file_->find_tensor(spec.name) != nullptr) add(spec);
    for (const bool joined : {true, false})
      for (const GgufSpec& spec : gguf_specs(config_, {.joined_kv_b = joined, .mtp = true})) add(spec);
  }

  std::optional<WeightMatrix> find(const std::string& name) const override { return look_up(name); }
  std::optional<WeightMatrix> key_b(const std::string& name) const override { return look_up(name + "#key"); }
  std::optional<WeightMatrix> value_b(const std::string& name) const override {
    return look_up(name + "#value");
  }
  const ModelConfig& config() const override { return config_; }
  RopeLayout rope_layout() const override {
    const bool pairs = config_.model_type == "llama" || config_.model_type == "mixtral";
    return pairs ? RopeLayout::interleaved : config_.rope_layout;
  }
  std::shared_ptr<const void> files() const override { return file_; }
  std::vector<const MappedFile*> mapped() const override {
    std::vector<const MappedFile*> out;
    for (const MappedFile& file : file_->files()) out.push_back(&file);
    return out;
  }

 private:
  struct Place {
    std::string tensor;
    std::vector<std::int64_t> shape;   // of the whole tensor, fastest dimension first
    std::int64_t part = 0, parts = 1;  // which of the matrices stacked in it
  };

  void add(const GgufSpec& spec) {
    const auto parts = static_cast<std::int64_t>(spec.sources.size());
    const char* const suffix = spec.layout == GgufLayout::key_b     ? "#key"
                               : spec.layout == GgufLayout::value_b ? "#value"
                                                                    : "";
    for (std::int64_t part = 0; part < parts; ++part)
      places_.emplace(spec.sources[static_cast<std::size_t>(part)].name + suffix,
                      Place{spec.name, spec.shape, part, parts});
  }

  std::optional<WeightMatrix> look_up(const std::string& name) const {
    const auto found = places_.find(name);
    if (found == places_.end()) return std::nullopt;
    const Place& place = found->second;
    const GgufTensor* tensor = file_->find_tensor(place.tensor);
    if (tensor == nullptr) return std::nullopt;
    const std::string origin = file_->path().string();
    require(tensor->shape == place.shape, "{}: tensor '{}' has shape {}, the metadata asks for {}", origin,
            place.tensor, shape_text(tensor->shape), shape_text(place.shape));
    const BlockInfo* info = find_block_format(tensor->type);
    require(info != nullptr, "{}: tensor '{}' is of type {}, which the engine does not compute with", origin,
            place.tensor, ggml_type(tensor->type)->name);
    WeightMatrix w{.name = name, .cols = tensor->shape[0], .format = info->format};
    w.rows = tensor->elements() / w.cols / place.parts;
    w.row_bytes = block_bytes(info->format, static_cast<std::size_t>(w.cols));
    w.data = file_->data(*tensor).data() + static_cast<std::size_t>(place.part) * w.bytes();
    return w;
  }

  std::shared_ptr<Gguf> file_;
  ModelConfig config_;
  std::map<std::string, Place> places_;
};

}  // namespace

std::unique_ptr<TensorFinder> open_tensors(const fs::path& path) {
  const SourceFormat format = detect_format(path);
  require(format != SourceFormat::llama2c,
          "{}: a llama2.c checkpoint; turn it into a Hugging Face directory first (sinew convert)",
          path.string());
  if (format == SourceFormat::gguf) return std::make_unique<GgufTensors>(path);
  return std::make_unique<HfTensors>(path);
}

}  // namespace sinew::engine
