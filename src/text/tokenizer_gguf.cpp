#include "text/tokenizer_gguf.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "text/gguf_pre_tokenizers.hpp"
#include "text/pipeline_tokenizer.hpp"
#include "text/sentencepiece.hpp"

namespace sinew {
namespace {

using Type = SentencePiece::Type;

// What both kinds have.
struct Tokens {
  std::vector<std::string_view> texts;
  std::vector<Type> types;
  std::vector<float> scores;
};

bool flag_of(const Gguf& file, const char* key, bool otherwise) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return otherwise;
  require(std::holds_alternative<bool>(*value), "{}: {} must be a boolean", file.path().string(), key);
  return std::get<bool>(*value);
}

std::optional<std::int64_t> id_of(const Gguf& file, const char* key, std::size_t tokens) {
  if (file.find(key) == nullptr) return std::nullopt;
  const std::int64_t id = file.get_int(key);
  require(id >= 0 && static_cast<std::uint64_t>(id) < tokens, "{}: {} is {}, but there are {} tokens",
          file.path().string(), key, id, tokens);
  return id;
}

std::string text_of(const Gguf& file, const char* key, const std::string& otherwise) {
  return file.find(key) == nullptr ? otherwise : file.get_string(key);
}

Tokens read_tokens(const Gguf& file) {
  const std::string origin = file.path().string();
  Tokens tokens;
  tokens.texts = file.get_array("tokenizer.ggml.tokens").strings;
  const std::size_t count = tokens.texts.size();
  require(count > 0 && count <= static_cast<std::size_t>(Vocabulary::kMaxSize),
          "{}: tokenizer.ggml.tokens has {} tokens", origin, count);
  tokens.types.assign(count, Type::normal);
  tokens.scores.assign(count, 0);
  if (file.find("tokenizer.ggml.token_type") != nullptr) {
    const GgufArray& types = file.get_array("tokenizer.ggml.token_type");
    require(types.signeds.size() + types.unsigneds.size() == count,
            "{}: tokenizer.ggml.token_type has {} entries for {} tokens", origin, types.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t type =
          types.signeds.empty() ? static_cast<std::int64_t>(types.unsigneds[i]) : types.signeds[i];
      if (type >= 1 && type <= 6) tokens.types[i] = static_cast<Type>(type);
    }
  }
  if (file.find("tokenizer.ggml.scores") != nullptr) {
    const GgufArray& scores = file.get_array("tokenizer.ggml.scores");
    require(scores.floats.size() == count, "{}: tokenizer.ggml.scores has {} entries for {} tokens", origin,
            scores.size(), count);
    for (std::size_t i = 0; i < count; ++i) tokens.scores[i] = static_cast<float>(scores.floats[i]);
  }
  return tokens;
}

// Which tokens are cut out of the text. The file does not say which of them take white space with them;
// Phi-3's do (llama.cpp knows them by the model's name, too).
std::vector<AddedToken> added_tokens(const Gguf& file, const Tokens& tokens) {
  std::string name = text_of(file, "general.name", "");
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const bool phi3 = name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
  std::vector<AddedToken> added;
  for (std::size_t id = 0; id < tokens.texts.size(); ++id) {
    const Type type = tokens.types[id];
    if (type != Type::control && type != Type::user_defined && type != Type::unknown) continue;
    if (tokens.texts[id].empty()) continue;
    AddedToken token;
    token.id = static_cast<TokenId>(id);
    token.content = tokens.texts[id];
    token.special = type != Type::user_defined;
    token.rstrip =
        phi3 && token.content != "<unk>" && token.content != "<s>" && token.content != "<|endoftext|>";
    added.push_back(std::move(token));
  }
  return added;
}

std::vector<std::pair<TokenId, TokenId>> read_merges(const Gguf& file, const Vocabulary& vocabulary) {
  std::vector<std::pair<TokenId, TokenId>> merges;
  if (file.find("tokenizer.ggml.merges") == nullptr) return merges;  // every byte a token
  for (const std::string_view merge : file.get_array("tokenizer.ggml.merges").strings) {
    const std::size_t space = merge.find(' ', 1);
    require(space != std::string_view::npos, "{}: tokenizer.ggml.merges: \"{}\" is not two tokens",
            file.path().string(), merge);
    const auto left = vocabulary.find(merge.substr(0, space)),
               right = vocabulary.find(merge.substr(space + 1));
    require(left && right, "{}: tokenizer.ggml.merges: \"{}\" has a token that is not in the vocabulary",
            file.path().string(), merge);
    merges.emplace_back(*left, *right);
  }
  return merges;
}

std::unique_ptr<Tokenizer> make_bpe(const Gguf& file) {
  const std::string origin = file.path().string();
  const Tokens tokens = read_tokens(file);
  auto vocabulary = std::make_shared<Vocabulary>();
  for (std::size_t id = 0; id < tokens.texts.size(); ++id)
    vocabulary->add(std::string(tokens.texts[id]), static_cast<std::int64_t>(id), origin);
  const std::string name = text_of(file, "tokenizer.ggml.pre", "default");
  GgufPreTokenizer preset = gguf_pre_tokenizer(name, origin);

  TokenizerParts parts;
  parts.vocabulary = vocabulary;
  parts.added = added_tokens(file, tokens);
  parts.pre_tokenizer = std::move(preset.pre_tokenizer);
  BpeOptions options;
  options.bytes = true;
  options.ignore_merges = preset.ignore_merges;
  parts.model = std::make_unique<Bpe>(vocabulary, read_merges(file, *vocabulary), options, origin);
  parts.decoder.add(DecodeByteLevel{});
  const auto token = [&](const char* key) -> std::optional<TokenId> {
    const auto id = id_of(file, key, tokens.texts.size());
    return id ? std::optional(static_cast<TokenId>(*id)) : std::nullopt;
  };
  parts.bos = token("tokenizer.ggml.bos_token_id");
  parts.eos = token("tokenizer.ggml.eos_token_id");
  if (flag_of(file, "tokenizer.ggml.add_bos_token", preset.add_bos) && parts.bos)
    parts.prefix.push_back(*parts.bos);
  if (flag_of(file, "tokenizer.ggml.add_eos_token", false) && parts.eos) parts.suffix.push_back(*parts.eos);
  parts.kind = "byte-level BPE (GGUF, pre-tokenizer " + name + ")";
  return make_pipeline_tokenizer(std::move(parts));
}

std::unique_ptr<Tokenizer> make_sentencepiece(const Gguf& file) {
  const std::string origin = file.path().string();
  const Tokens tokens = read_tokens(file);
  SentencePieceModel model;
  model.kind = SentencePieceModel::Kind::bpe;
  SentencePieceOptions options;
  options.added = added_tokens(file, tokens);
  std::size_t bytes = 0;
  for (std::size_t id = 0; id < tokens.texts.size(); ++id) {
    // Tokens cut out first are no pieces of the model itself, user-defined ones included.
    const Type type = tokens.types[id];
    require(!tokens.texts[id].empty(), "{}: token {} has no text", origin, id);
    model.pieces.push_back({std::string(tokens.texts[id]), tokens.scores[id], type});
    bytes += type == Type::byte ? 1 : 0;
  }
  model.byte_fallback = bytes == 256;
  model.add_dummy_prefix = flag_of(file, "tokenizer.ggml.add_space_prefix", true);
  model.remove_extra_whitespaces = flag_of(file, "tokenizer.ggml.remove_extra_whitespaces", false);
  const std::size_t count = tokens.texts.size();
  model.bos_id = id_of(file, "tokenizer.ggml.bos_token_id", count).value_or(1);
  model.eos_id = id_of(file, "tokenizer.ggml.eos_token_id", count).value_or(2);
  model.unk_id = id_of(file, "tokenizer.ggml.unknown_token_id", count).value_or(0);
  options.add_bos = flag_of(file, "tokenizer.ggml.add_bos_token", true);
  options.add_eos = flag_of(file, "tokenizer.ggml.add_eos_token", false);
  options.kind =
      std::string("SentencePiece BPE") + (model.byte_fallback ? " with byte fallback" : "") + " (GGUF)";
  return make_sentencepiece_tokenizer(std::move(model), std::move(options), origin);
}

}  // namespace

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const Gguf& file) {
  require(file.find("tokenizer.ggml.model") != nullptr, "{}: this GGUF file holds no tokenizer",
          file.path().string());
  const std::string model = file.get_string("tokenizer.ggml.model");
  if (model == "gpt2") return make_bpe(file);
  if (model == "llama") return make_sentencepiece(file);
  fail("{}: the tokenizer model \"{}\" is not supported (supported: gpt2, llama)", file.path().string(),
       model);
}

}  // namespace sinew
