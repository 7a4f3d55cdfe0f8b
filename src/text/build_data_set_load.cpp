#include "text/build_data_set.hpp"

namespace sinew {
namespace {

// The file of a tokenizer directory that load_tokenizer would read.
fs::path tokenizer_file(const fs::path& path) {
  if (!fs::is_directory(path)) return path;
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (fs::exists(path / name)) return path / name;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".gguf") return entry.path();
  fail("{}: no tokenizer.json, tokenizer.model or .gguf in this directory", path.string());
}

}  // namespace

DataSetResult build_data_set(const DataSetOptions& options) {
  const auto tokenizer = load_tokenizer(options.tokenizer);
  return build_data_set(options, *tokenizer, tokenizer_file(options.tokenizer));
}

}  // namespace sinew
