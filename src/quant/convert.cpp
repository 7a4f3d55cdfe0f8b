#include "quant/convert.hpp"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
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
  require(from == SourceFormat::llama2c && !to_gguf, "{}: this conversion is not supported yet",
          options.source.string());
  convert_from_llama2c(options);
}

}  // namespace sinew
