#include "quant/convert.hpp"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "quant/gguf_config.hpp"
#include "quant/gguf_export.hpp"
#include "quant/gguf_tokenizer.hpp"
#include "quant/model_source.hpp"
#include "storage/llama2c.hpp"

namespace sinew {
namespace {

bool is_gguf(const fs::path& path) {
  const MappedFile file(path);
  return file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0;
}

// The tokenizer that belongs to a llama2.c checkpoint, by the names its own tools give; empty when there is
// none.
fs::path find_llama2c_tokenizer(const ConvertOptions& options, std::int64_t vocab_size) {
  if (!options.tokenizer.empty()) return options.tokenizer;
  for (const std::string& name : {fmt::format("tok{}.bin", vocab_size), std::string("tokenizer.bin")}) {
    const fs::path path = options.source.parent_path() / name;
    if (fs::exists(path)) return path;
  }
  return {};
}

void write_llama_tokenizer_config(const fs::path& out, std::int64_t max_length) {
  const nlohmann::ordered_json config = {{"tokenizer_class", "LlamaTokenizer"},
                                         {"add_bos_token", true},
                                         {"add_eos_token", false},
                                         {"bos_token", "<s>"},
                                         {"eos_token", "</s>"},
                                         {"unk_token", "<unk>"},
                                         {"legacy", true},
                                         {"clean_up_tokenization_spaces", false},
                                         {"model_max_length", max_length}};
  write_file_atomic(out / "tokenizer_config.json", config.dump(2) + "\n");
}

void convert_from_llama2c(const ConvertOptions& options) {
  const ModelConfig config = read_llama2c_config(options.source);
  const fs::path tokenizer = find_llama2c_tokenizer(options, config.vocab_size);
  if (tokenizer.empty()) {
    log::warn("{}: no tokenizer beside it (--tokenizer FILE); the model is written without one",
              options.source.string());
  } else {
    const std::string model = convert_llama2c_tokenizer(tokenizer, config.vocab_size);
    make_directories(options.out);
    write_file_atomic(options.out / "tokenizer.model", model);
    write_llama_tokenizer_config(options.out, config.max_position_embeddings);
  }
  make_directories(options.out);
  convert_llama2c(options.source, options.out);
}

// The format that `type`, or else the source, asks for; F32 where every file has it.
BlockFormat stored_format(const SourceTensor& tensor, const std::optional<BlockFormat>& type) {
  return tensor.fp32 ? BlockFormat::f32 : type.value_or(tensor.stored);
}

// Rows whose format does not change keep their bits: floats hold every F16 and BF16. Quantized tensors become
// BF16.
void convert_to_gguf(const ConvertOptions& options) {
  const ModelSource source = open_model_source(options.source, options.gguf);
  std::vector<BlockFormat> formats;
  for (const SourceTensor& tensor : source.tensors) {
    const BlockFormat format = stored_format(tensor, options.type);
    formats.push_back(block_info(format).elements == 1 ? format : BlockFormat::bf16);
  }
  export_gguf(source, formats, options.out,
              [&](std::size_t index, const float* rows, std::int64_t, std::int64_t count, std::byte* out) {
                encode_float(formats[index], rows,
                             static_cast<std::size_t>(count * source.tensors[index].rows.cols), out);
              });
}

DType hf_dtype(const ConvertOptions& options, const ModelConfig& config, const Gguf& file) {
  if (options.type)
    return *options.type == BlockFormat::f16    ? DType::F16
           : *options.type == BlockFormat::bf16 ? DType::BF16
                                                : DType::F32;
  if (config.dtype == "float32") return DType::F32;
  if (config.dtype == "float16") return DType::F16;
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (!config.dtype.empty() || embedding == nullptr) return DType::BF16;
  return embedding->type == 0 ? DType::F32 : embedding->type == 1 ? DType::F16 : DType::BF16;
}

struct Shard {
  std::vector<TensorInfo> infos;
  std::vector<TensorSpec> specs;
  std::uint64_t bytes = 0;
};

std::vector<Shard> plan_shards(const std::vector<TensorSpec>& specs, DType dtype, std::uint64_t limit) {
  std::vector<Shard> shards(1);
  for (const TensorSpec& spec : specs) {
    const TensorInfo info{.name = spec.name, .dtype = spec.fp32 ? DType::F32 : dtype, .shape = spec.shape};
    const std::uint64_t bytes = static_cast<std::uint64_t>(info.elements()) * dtype_size(info.dtype);
    if (shards.back().bytes > 0 && shards.back().bytes + bytes > limit) shards.emplace_back();
    shards.back().infos.push_back(info);
    shards.back().specs.push_back(spec);
    shards.back().bytes += bytes;
  }
  return shards;
}

void write_shard(const Shard& shard, const ModelConfig& config, const Gguf& file, const fs::path& path,
                 Progress& progress, std::uint64_t& done) {
  SafetensorsWriter writer(path, shard.infos, {{"format", "pt"}});
  for (std::size_t i = 0; i < shard.specs.size(); ++i) {
    const RowSource rows = hf_tensor_rows(shard.specs[i], config, file);
    const DType dtype = shard.infos[i].dtype;
    stream_rows(
        rows, static_cast<std::size_t>(rows.cols) * dtype_size(dtype),
        [&](const float* values, std::int64_t, std::int64_t count, std::byte* out) {
          from_float(dtype, values, out, static_cast<std::size_t>(count * rows.cols));
        },
        [&](const std::byte* bytes, std::size_t size) {
          if (stop_requested() != 0)
            throw Error(
                fmt::format("{}: stopped; the model there is not complete", path.parent_path().string()));
          writer.write(bytes, size);
          progress.update(done += size);
        });
  }
  check_mapped_files();
  writer.commit();
}

void convert_gguf_to_hf(const ConvertOptions& options) {
  const Gguf file(options.source);
  ModelConfig config = gguf_model_config(file);
  const DType dtype = hf_dtype(options, config, file);
  config.dtype = dtype == DType::F32 ? "float32" : dtype == DType::F16 ? "float16" : "bfloat16";
  const std::vector<TensorSpec> specs = tensor_specs(config);
  for (const TensorSpec& spec : specs)
    hf_tensor_rows(spec, config, file);  // every tensor is there before one is written
  const std::vector<Shard> shards = plan_shards(specs, dtype, options.max_shard_bytes);
  std::uint64_t total = 0, done = 0;
  for (const Shard& shard : shards) total += shard.bytes;
  make_directories(options.out);
  Progress progress("Writing " + options.out.filename().string(), total, "bytes");
  nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                  {"weight_map", nlohmann::ordered_json::object()}};
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1
                                 ? "model.safetensors"
                                 : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard(shards[i], config, file, options.out / name, progress, done);
    for (const TensorInfo& info : shards[i].infos) index["weight_map"][info.name] = name;
  }
  progress.finish();
  if (shards.size() > 1)
    write_file_atomic(options.out / "model.safetensors.index.json", index.dump(2) + "\n");
  write_tokenizer_files(file, options.out);
  write_file_atomic(options.out / "config.json", write_model_config(config));
}

}  // namespace

SourceFormat detect_format(const fs::path& path) {
  require(fs::exists(path), "{}: no such file or directory", path.string());
  if (fs::is_directory(path)) {
    require(fs::exists(path / "config.json"), "{}: not a model directory: no config.json", path.string());
    return SourceFormat::hf;
  }
  if (is_gguf(path)) return SourceFormat::gguf;
  read_llama2c_config(path);
  return SourceFormat::llama2c;
}

void convert_model(const ConvertOptions& options) {
  const SourceFormat from = detect_format(options.source);
  const bool to_gguf = options.out.extension() == ".gguf";
  require(options.force || !(to_gguf ? fs::exists(options.out) : fs::exists(options.out / "config.json")),
          "{}: a model is already there (--force replaces it)", options.out.string());
  require(!options.type || block_info(*options.type).elements == 1,
          "convert writes f32, f16 or bf16; {} is for sinew quantize",
          block_info(options.type.value_or(BlockFormat::f32)).name);
  if (to_gguf) {
    convert_to_gguf(options);
  } else if (from == SourceFormat::gguf) {
    convert_gguf_to_hf(options);
  } else {
    require(from == SourceFormat::llama2c,
            "{}: already a Hugging Face directory; give OUT a name ending in .gguf", options.source.string());
    convert_from_llama2c(options);
  }
}

}  // namespace sinew
