// Hugging Face model directories: load_model and save_model.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "model/language_model.hpp"
#include "model/parameters.hpp"
#include "ops/tensor.hpp"
#include "storage/safetensors.hpp"

namespace sinew {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The layer of "model.layers.<layer>.rest", and the rest; -1 for other names.
std::int64_t layer_of(std::string_view name, std::string_view& rest) {
  constexpr std::string_view prefix = "model.layers.";
  if (!name.starts_with(prefix)) return -1;
  std::int64_t layer = 0;
  auto at = prefix.size();
  for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && layer < 1'000'000; ++at) {
    layer = layer * 10 + (name[at] - '0');
  }
  if (at == prefix.size() || at >= name.size() || name[at] != '.') return -1;
  rest = name.substr(at + 1);
  return layer;
}

// How many of the MTP layers that the config names have tensors in the files.
std::int64_t present_mtp_layers(const ModelWeights& weights, const ModelConfig& config) {
  std::int64_t present = 0;
  for (const auto& tensor : weights.tensors()) {
    std::string_view rest;
    const auto depth = layer_of(tensor.name, rest) - config.num_hidden_layers;
    if (depth >= 0 && depth < config.num_nextn_predict_layers) present = std::max(present, depth + 1);
  }
  return present;
}

// Tensors that public checkpoints hold beside those of tensor_specs(), and that say nothing new.
bool known_extra(const std::string& name, const ModelConfig& config) {
  if (name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".weight_scale_inv")) return true;
  if (config.tie_word_embeddings && name == "lm_head.weight") return true;
  std::string_view rest;
  return layer_of(name, rest) >= config.num_hidden_layers &&
         (rest == "embed_tokens.weight" || rest == "shared_head.head.weight");  // MTP's copies
}

void check_tensors(const ModelWeights& weights, const LanguageModel& model, const std::string& origin) {
  std::vector<std::string> missing, unexpected;
  std::set<std::string, std::less<>> wanted;
  for (const auto& spec : tensor_specs(model.config())) {  // the whole, whatever part `model` is
    wanted.insert(spec.name);
    const auto* found = weights.find(spec.name);
    if (found == nullptr) {
      missing.push_back(spec.name);
      continue;
    }
    require(found->shape == spec.shape, "{}: tensor '{}' has shape {}, config.json asks for {}", origin,
            spec.name, shape_text(found->shape), shape_text(spec.shape));
  }
  std::int64_t later_layers = 0;
  for (const auto& tensor : weights.tensors()) {
    if (wanted.contains(tensor.name) || known_extra(tensor.name, model.config())) continue;
    std::string_view rest;
    if (layer_of(tensor.name, rest) >= model.config().num_hidden_layers) {
      ++later_layers;
    } else {
      unexpected.push_back(tensor.name);
    }
  }
  const auto others = [](std::size_t n) {
    return n > 1 ? fmt::format(" (and {} more)", n - 1) : std::string();
  };
  require(missing.empty(), "{}: tensor '{}' is missing{}", origin, missing.empty() ? "" : missing[0],
          others(missing.size()));
  require(unexpected.empty(), "{}: tensor '{}' is not one that config.json describes{}", origin,
          unexpected.empty() ? "" : unexpected[0], others(unexpected.size()));
  if (later_layers > 0) {
    log::warn("{}: {} tensors of layers beyond num_hidden_layers are left out", origin, later_layers);
  }
}

at::ScalarType plain_type(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return at::kFloat;
    case DType::F64:
      return at::kDouble;
    case DType::BF16:
      return at::kBFloat16;
    case DType::F16:
      return at::kHalf;
    default:
      return at::kByte;
  }
}

// The tensor as fp32 where the file holds it in 8 bits: value * scale of its 128 x 128 block (DeepSeek-V3,
// README_WEIGHTS.md).
at::Tensor dequantized(const ModelWeights& weights, const TensorInfo& info, const std::string& origin) {
  auto out = at::empty(info.shape, at::TensorOptions(at::kFloat));
  to_float(info.dtype, weights.data(info.name).data(), out.data_ptr<float>(),
           static_cast<std::size_t>(out.numel()));
  constexpr std::int64_t block = 128;
  const auto* scale = weights.find(info.name + "_scale_inv");
  require(scale != nullptr, "{}: tensor '{}' is FP8 without its {}_scale_inv", origin, info.name, info.name);
  require(info.shape.size() == 2 && scale->shape.size() == 2 &&
              scale->shape[0] == (info.shape[0] + block - 1) / block &&
              scale->shape[1] == (info.shape[1] + block - 1) / block,
          "{}: tensor '{}' has shape {}, not one scale for each 128 x 128 block of {}", origin, scale->name,
          shape_text(scale->shape), shape_text(info.shape));
  auto scales = at::empty(scale->shape, at::TensorOptions(at::kFloat));
  to_float(scale->dtype, weights.data(scale->name).data(), scales.data_ptr<float>(),
           static_cast<std::size_t>(scales.numel()));
  const auto spread = scales.repeat_interleave(block, 0).narrow(0, 0, info.shape[0]);
  return out.mul_(spread.repeat_interleave(block, 1).narrow(1, 0, info.shape[1]));
}

void read_tensor(const ModelWeights& weights, const TensorInfo& info, const at::Tensor& target,
                 const std::string& origin) {
  if (info.dtype == DType::F8_E4M3 || info.dtype == DType::F8_E5M2) {
    target.copy_(dequantized(weights, info, origin));
    return;
  }
  const auto type = plain_type(info.dtype);
  require(type != at::kByte, "{}: tensor '{}' is {}, which Sinew does not train from", origin, info.name,
          dtype_name(info.dtype));
  const auto bytes = weights.data(info.name);
  auto stage = at::empty(info.shape, at::TensorOptions(type));  // the file's bytes may not be aligned
  std::memcpy(stage.data_ptr(), bytes.data(), bytes.size());
  target.copy_(stage);
}

DType file_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::F32;
    case at::kDouble:
      return DType::F64;
    case at::kBFloat16:
      return DType::BF16;
    case at::kHalf:
      return DType::F16;
    default:
      throw Error("internal: a parameter of no file type");
  }
}

struct Shard {
  std::vector<const Parameter*> parameters;
  std::uint64_t bytes = 0;
};

std::vector<Shard> plan_shards(const LanguageModel& model, std::uint64_t max_bytes) {
  std::vector<Shard> shards(1);
  for (const auto& parameter : model.parameters()) {
    const auto bytes = parameter.tensor.nbytes();
    if (shards.back().bytes > 0 && shards.back().bytes + bytes > max_bytes) shards.emplace_back();
    shards.back().parameters.push_back(&parameter);
    shards.back().bytes += bytes;
  }
  return shards;
}

void write_shard(const Shard& shard, const fs::path& path) {
  std::vector<TensorInfo> infos;
  for (const auto* parameter : shard.parameters) {
    infos.push_back(
        {parameter->name, file_type(parameter->tensor.scalar_type()), parameter->tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, infos, {{"format", "pt"}});
  for (const auto* parameter : shard.parameters) {
    const auto host = parameter->tensor.detach().to(at::kCPU).contiguous();
    writer.write(host.data_ptr(), host.nbytes());
  }
  writer.commit();
}

bool is_shard_name(const std::string& name) {
  return name.starts_with("model-") && name.ends_with(".safetensors");
}

// Weight files of an earlier save that the new one does not name.
void remove_stale(const fs::path& directory, const std::vector<std::string>& current) {
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const auto name = entry.path().filename().string();
    const bool weights =
        name == "model.safetensors" || name == "model.safetensors.index.json" || is_shard_name(name);
    if (weights && std::find(current.begin(), current.end(), name) == current.end())
      stale.push_back(entry.path());
  }
  for (const auto& path : stale) fs::remove(path);
}

std::string_view torch_name(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    case at::kDouble:
      return "float64";
    default:
      return "float32";
  }
}

void write_generation_config(const ModelConfig& config, const fs::path& directory) {
  if (config.bos_token_ids.empty() && config.eos_token_ids.empty()) return;
  nlohmann::ordered_json out;
  const auto put = [&](const char* key, const std::vector<std::int64_t>& ids) {
    if (ids.size() == 1) out[key] = ids[0];
    if (ids.size() > 1) out[key] = ids;
  };
  out["_from_model_config"] = true;
  put("bos_token_id", config.bos_token_ids);
  put("eos_token_id", config.eos_token_ids);
  write_file_atomic(directory / "generation_config.json", out.dump(2) + "\n");
}

}  // namespace

std::unique_ptr<LanguageModel> load_model(const fs::path& directory, at::ScalarType dtype, at::Device device,
                                          const Partition& partition) {
  require(fs::is_directory(directory), "{}: no such model directory", directory.string());
  auto config = load_model_config(directory);
  const ModelWeights weights(directory);
  const auto mtp = present_mtp_layers(weights, config);
  if (mtp < config.num_nextn_predict_layers) {
    log::warn("{}: {} of {} multi-token-prediction layers are not in the files and are left out",
              directory.string(), config.num_nextn_predict_layers - mtp, config.num_nextn_predict_layers);
    config.num_nextn_predict_layers = mtp;
  }
  auto model = std::make_unique<LanguageModel>(config, dtype, device, partition);
  check_tensors(weights, *model, directory.string());
  const at::NoGradGuard no_grad;
  UnitWriter writer(partition);
  for (const auto& parameter : model->parameters()) {
    const auto& part = parameter.part;
    writer.move_to(part.unit);
    const bool whole = part.shape == part.whole.shape;
    const auto target = whole ? parameter.tensor : at::empty(part.whole.shape, parameter.tensor.options());
    read_tensor(weights, *weights.find(parameter.name), target, directory.string());
    if (whole) continue;
    auto box = target;
    for (std::size_t d = 0; d < part.shape.size(); ++d)
      box = box.narrow(static_cast<std::int64_t>(d), part.offset[d], part.shape[d]);
    parameter.tensor.copy_(box);
  }
  return model;
}

void save_model(const LanguageModel& model, const fs::path& directory, std::uint64_t max_shard_bytes) {
  make_directories(directory);
  const auto shards = plan_shards(model, max_shard_bytes);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    names.push_back(shards.size() == 1
                        ? "model.safetensors"
                        : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    write_shard(shards[i], directory / names[i]);
  }
  if (shards.size() > 1) {
    nlohmann::ordered_json map = nlohmann::ordered_json::object();
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      for (const auto* parameter : shards[i].parameters) map[parameter->name] = names[i];
      total += shards[i].bytes;
    }
    const nlohmann::ordered_json index{{"metadata", {{"total_size", total}}}, {"weight_map", map}};
    write_file_atomic(directory / "model.safetensors.index.json", index.dump(2) + "\n");
    names.emplace_back("model.safetensors.index.json");
  }
  auto config = model.config();
  config.dtype = torch_name(model.parameters().front().tensor.scalar_type());
  write_file_atomic(directory / "config.json", write_model_config(config));
  write_generation_config(config, directory);
  remove_stale(directory, names);
  sync_directory(directory);
}

}  // namespace sinew
