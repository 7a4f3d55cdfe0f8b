#include <fstream>

#include "base/error.hpp"
#include "base/files.hpp"
#include "text/sentencepiece.hpp"
#include "text/tokenizer.hpp"
#include "text/tokenizer_gguf.hpp"
#include "text/tokenizer_json.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 28;

std::string config_beside(const fs::path& path) {
  const fs::path config = path.parent_path() / "tokenizer_config.json";
  return fs::is_regular_file(config) ? read_file(config, kMaxFile) : "";
}

bool is_gguf(const fs::path& path) {
  char magic[4] = {};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic, sizeof magic) && std::string_view(magic, sizeof magic) == "GGUF";
}

fs::path tokenizer_in(const fs::path& directory) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (fs::is_regular_file(directory / name)) return directory / name;
  fail("{}: no tokenizer.json or tokenizer.model in this folder", directory.string());
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& given) {
  require(fs::exists(given), "{}: no such file", given.string());
  const fs::path path = fs::is_directory(given) ? tokenizer_in(given) : given;
  if (is_gguf(path)) return make_gguf_tokenizer(Gguf(path));
  const std::string text = read_file(path, kMaxFile);
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string::npos && text[start] == '{')
    return parse_tokenizer_json(text, config_beside(path), path.string());
  if (looks_like_sentencepiece(text)) return parse_sentencepiece(text, config_beside(path), path.string());
  fail("{}: not a tokenizer file that is known (tokenizer.json, tokenizer.model or GGUF)", path.string());
}

}  // namespace sinew
