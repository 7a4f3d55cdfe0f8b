#include "storage/export_checkpoint.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/model_config.hpp"

namespace sinew {
namespace {

using nlohmann::ordered_json;

const char* torch_name(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return "float32";
    case DType::BF16:
      return "bfloat16";
    case DType::F16:
      return "float16";
    default:
      fail("a model is exported as fp32, bf16 or fp16, not {}", dtype_name(dtype));
  }
}

struct Shard {
  std::vector<TensorInfo> tensors;
  std::uint64_t bytes = 0;
};

std::vector<Shard> plan_shards(const CheckpointReader& checkpoint, const ModelConfig& config, DType dtype,
                               std::uint64_t max_bytes) {
  std::vector<Shard> shards(1);
  for (const auto& spec : tensor_specs(config)) {
    const CheckpointTensor* saved = checkpoint.find("weight/" + spec.name);
    require(saved != nullptr && saved->shape == spec.shape && saved->dtype == DType::F32,
            "{}: holds no {} of the shape that its config.json asks for", checkpoint.path().string(),
            spec.name);
    TensorInfo info{.name = spec.name,
                    .dtype = spec.fp32 ? DType::F32 : dtype,
                    .shape = spec.shape,
                    .offset = 0,
                    .bytes = 0};
    info.bytes = static_cast<std::uint64_t>(info.elements()) * dtype_size(info.dtype);
    if (!shards.back().tensors.empty() && shards.back().bytes + info.bytes > max_bytes) shards.emplace_back();
    shards.back().bytes += info.bytes;
    shards.back().tensors.push_back(std::move(info));
  }
  return shards;
}

void write_shard(const CheckpointReader& checkpoint, const Shard& shard, const fs::path& path) {
  SafetensorsWriter writer(path, shard.tensors, {{"format", "pt"}});
  std::vector<float> values;
  std::vector<std::byte> converted;
  for (const auto& info : shard.tensors) {
    values.resize(static_cast<std::size_t>(info.elements()));
    converted.resize(info.bytes);
    checkpoint.read_all(*checkpoint.find("weight/" + info.name), reinterpret_cast<std::byte*>(values.data()));
    from_float(info.dtype, values.data(), converted.data(), values.size());
    writer.write(converted.data(), converted.size());
  }
  writer.commit();
}

void write_weights(const CheckpointReader& checkpoint, const std::vector<Shard>& shards,
                   const fs::path& directory) {
  if (shards.size() == 1) return write_shard(checkpoint, shards[0], directory / "model.safetensors");
  ordered_json index;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard(checkpoint, shards[i], directory / name);
    total += shards[i].bytes;
    for (const auto& info : shards[i].tensors) index["weight_map"][info.name] = name;
  }
  index["metadata"]["total_size"] = total;
  write_file_atomic(directory / "model.safetensors.index.json", index.dump(2) + "\n");
}

// Puts the finished `prepared` in place of `out`.
void swap_in(const fs::path& prepared, const fs::path& out) {
  const fs::path old = out.string() + ".old";
  std::error_code error;
  fs::remove_all(old, error);
  if (fs::exists(out)) {
    fs::rename(out, old, error);
    if (error) throw IoError(fmt::format("{}: cannot replace: {}", out.string(), error.message()));
  }
  fs::rename(prepared, out, error);
  if (error) throw IoError(fmt::format("{}: cannot rename into place: {}", out.string(), error.message()));
  sync_directory(out.has_parent_path() ? out.parent_path() : fs::path("."));
  fs::remove_all(old, error);
}

}  // namespace

void export_checkpoint(const CheckpointReader& checkpoint, const fs::path& target, DType dtype,
                       std::uint64_t max_shard_bytes) {
  const fs::path out = fs::absolute(target / "").parent_path().lexically_normal();
  const std::string origin = (checkpoint.path() / "config.json").string();
  const ModelConfig config = parse_model_config(checkpoint.text("config.json"), origin);
  ordered_json config_json = ordered_json::parse(checkpoint.text("config.json"));
  config_json["torch_dtype"] = config_json["dtype"] = torch_name(dtype);  // two names of one thing
  const auto shards = plan_shards(checkpoint, config, dtype, max_shard_bytes);
  const fs::path prepared = out.string() + ".unfinished";
  std::error_code ignored;
  fs::remove_all(prepared, ignored);
  make_directories(prepared);
  try {
    write_file_atomic(prepared / "config.json", config_json.dump(2) + "\n");
    for (const auto& name : checkpoint.other_files())
      if (name != "config.json") write_file_atomic(prepared / name, checkpoint.text(name));
    write_weights(checkpoint, shards, prepared);
    check_mapped_files();
    swap_in(prepared, out);
  } catch (const IoError&) {
    fs::remove_all(prepared, ignored);
    throw;
  }
}

}  // namespace sinew
