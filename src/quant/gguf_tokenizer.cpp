#include "quant/gguf_tokenizer.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "storage/sentencepiece_writer.hpp"
#include "text/gguf_pre_tokenizers.hpp"
#include "text/sentencepiece_model.hpp"

namespace sinew {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;

constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 28;
constexpr std::size_t kMaxVocabulary = 1 << 24;
constexpr std::int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5,
                       kByte = 6;  // llama.cpp's token types

// The vocabulary as llama.cpp keeps it.
struct Vocabulary {
  std::string model, pre;  // "llama" or "gpt2", and the name of the pre-tokenizer
  std::vector<std::string> tokens{};
  std::vector<float> scores{};  // of "llama"
  std::vector<std::int32_t> types{};
  std::vector<std::string> merges{};  // of "gpt2"
  std::optional<std::uint32_t> bos{}, eos{}, unknown{}, padding{};
  std::optional<bool> add_bos{}, add_eos{}, space_prefix{};

  std::optional<std::uint32_t> find(const std::string& token) const {
    const auto found = std::find(tokens.begin(), tokens.end(), token);
    if (found == tokens.end()) return std::nullopt;
    return static_cast<std::uint32_t>(found - tokens.begin());
  }
};

Json parse_json(const fs::path& path) {
  Json json = Json::parse(read_file(path, kMaxFile), nullptr, false);
  require(json.is_object(), "{}: not a JSON object", path.string());
  return json;
}

std::optional<std::uint32_t> id_or_none(std::int64_t id) {
  if (id < 0) return std::nullopt;
  return static_cast<std::uint32_t>(id);
}

Vocabulary sentencepiece_vocabulary(const fs::path& path) {
  const SentencePieceModel model = parse_sentencepiece_model(read_file(path, kMaxFile), path.string());
  Vocabulary out{.model = "llama", .pre = "default"};
  for (const SentencePiece& piece : model.pieces) {
    out.tokens.push_back(piece.text);
    out.scores.push_back(piece.score);
    out.types.push_back(static_cast<std::int32_t>(piece.type));
  }
  out.bos = id_or_none(model.bos_id);
  out.eos = id_or_none(model.eos_id);
  out.unknown = id_or_none(model.unk_id);
  out.space_prefix = model.add_dummy_prefix;
  out.add_bos = true;
  out.add_eos = false;
  return out;
}

// The name llama.cpp gives to a pre-tokenizer, told by the part of its patterns that no other has.
std::string pre_tokenizer_name(const Json& tokenizer) {
  const std::string text =
      tokenizer.contains("pre_tokenizer")
          ? tokenizer["pre_tokenizer"].dump(-1, ' ', false, Json::error_handler_t::replace)
          : "";
  const auto holds = [&](std::string_view part) { return text.find(part) != std::string::npos; };
  if (holds("[一-龥") && holds("\\\\p{N}{1,3}")) return "deepseek-v3";
  if (holds("\\\\s?[A-Za-zµ")) return "deepseek-llm";
  if (holds("\\\\s?\\\\p{L}+") && holds("Digits")) return "deepseek-coder";
  if (holds("(?i:'s|'t|'re|'ve|'m|'ll|'d)")) return holds("\\\\p{N}{1,3}") ? "llama-bpe" : "qwen2";
  if (holds("ByteLevel")) return "gpt-2";
  log::warn("the pre-tokenizer has no name that llama.cpp knows; other programs may split text differently");
  return "default";
}

std::vector<std::string> merge_list(const Json& model, const std::string& origin) {
  std::vector<std::string> merges;
  if (!model.contains("merges")) return merges;
  for (const Json& merge : model["merges"]) {
    if (merge.is_string()) {
      merges.push_back(merge.get<std::string>());
    } else {
      require(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
              "{}: a merge that is neither a string nor two", origin);
      merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
  }
  return merges;
}

void put_token(Vocabulary& out, const Json& id, const std::string& token, std::int32_t type,
               const std::string& origin) {
  require(id.is_number_unsigned() && id.get<std::uint64_t>() < kMaxVocabulary,
          "{}: token id {} is out of range", origin, id.dump());
  const auto at = id.get<std::size_t>();
  if (at >= out.tokens.size()) {
    out.tokens.resize(at + 1);
    out.types.resize(at + 1, kUnused);
  }
  out.tokens[at] = token;
  out.types[at] = type;
}

// SentencePiece's BPE joins the pair whose result scores highest: minus the rank of the first merge that
// makes it.
std::vector<float> scores_of_merges(const Vocabulary& vocabulary, const std::vector<std::string>& merges) {
  std::map<std::string, float> rank;
  for (std::size_t i = 0; i < merges.size(); ++i) {
    std::string joined = merges[i];
    joined.erase(std::min(joined.find(' '), joined.size() - 1), 1);
    rank.emplace(joined, -static_cast<float>(i));
  }
  std::vector<float> scores;
  for (const std::string& token : vocabulary.tokens) {
    const auto found = rank.find(token);
    scores.push_back(found == rank.end() ? (rank.empty() ? 0 : -static_cast<float>(merges.size()))
                                         : found->second);
  }
  return scores;
}

bool is_byte_token(const std::string& token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

Vocabulary json_vocabulary(const fs::path& path) {
  const std::string origin = path.string();
  const Json json = parse_json(path);
  require(json.contains("model") && json["model"].is_object() &&
              json["model"].value("type", "BPE") == "BPE" && json["model"].contains("vocab") &&
              json["model"]["vocab"].is_object(),
          "{}: only BPE vocabularies go into GGUF files", origin);
  const Json& model = json["model"];
  const bool bytes = model.value("byte_fallback", false);
  Vocabulary out{.model = bytes ? "llama" : "gpt2", .pre = bytes ? "default" : pre_tokenizer_name(json)};
  for (const auto& [token, id] : model["vocab"].items())
    put_token(out, id, token, bytes && is_byte_token(token) ? kByte : kNormal, origin);
  for (const Json& added : json.value("added_tokens", Json::array())) {
    require(added.is_object() && added.contains("id") && added.contains("content") &&
                added["content"].is_string(),
            "{}: an added token without id or content", origin);
    put_token(out, added["id"], added["content"], added.value("special", false) ? kControl : kUserDefined,
              origin);
  }
  out.merges = merge_list(model, origin);
  if (bytes) {
    out.scores = scores_of_merges(out, out.merges);
    out.merges.clear();
    if (model.contains("unk_token") && model["unk_token"].is_string()) {
      out.unknown = out.find(model["unk_token"]);
      if (out.unknown) out.types[*out.unknown] = 2;
    }
  }
  return out;
}

// "<s>" or {"content": "<s>", ...}.
std::optional<std::uint32_t> special_id(const Vocabulary& vocabulary, const Json& config, const char* key) {
  if (!config.contains(key)) return std::nullopt;
  const Json& value = config[key];
  const Json& text = value.is_object() && value.contains("content") ? value["content"] : value;
  return text.is_string() ? vocabulary.find(text.get<std::string>()) : std::nullopt;
}

// What the two config files of a directory say about special tokens.
void apply_configs(const Json& tokenizer_config, const ModelConfig& config, Vocabulary& out) {
  if (const auto id = special_id(out, tokenizer_config, "bos_token")) out.bos = id;
  if (const auto id = special_id(out, tokenizer_config, "eos_token")) out.eos = id;
  if (const auto id = special_id(out, tokenizer_config, "unk_token")) out.unknown = id;
  if (const auto id = special_id(out, tokenizer_config, "pad_token")) out.padding = id;
  if (!out.bos && !config.bos_token_ids.empty())
    out.bos = static_cast<std::uint32_t>(config.bos_token_ids[0]);
  if (!out.eos && !config.eos_token_ids.empty())
    out.eos = static_cast<std::uint32_t>(config.eos_token_ids[0]);
  for (const auto& [key, flag] :
       {std::pair{"add_bos_token", &out.add_bos}, std::pair{"add_eos_token", &out.add_eos}}) {
    if (tokenizer_config.contains(key) && tokenizer_config[key].is_boolean())
      *flag = tokenizer_config[key].get<bool>();
  }
}

void fill_vocabulary(std::size_t size, const std::string& origin, Vocabulary& out) {
  require(out.tokens.size() <= size, "{}: {} tokens, but the model has a vocabulary of {}", origin,
          out.tokens.size(), size);
  out.tokens.resize(size);
  out.types.resize(size, kUnused);
  if (!out.scores.empty()) out.scores.resize(size, -1e4F);
  for (std::size_t id = 0; id < size; ++id) {
    if (out.tokens[id].empty() && out.types[id] == kUnused) out.tokens[id] = fmt::format("[PAD{}]", id);
  }
}

void set_vocabulary(const Vocabulary& v, GgufMetadata& metadata) {
  metadata.set_string("tokenizer.ggml.model", v.model);
  metadata.set_string("tokenizer.ggml.pre", v.pre);
  metadata.set_strings("tokenizer.ggml.tokens", v.tokens);
  if (!v.scores.empty()) metadata.set_f32s("tokenizer.ggml.scores", v.scores);
  metadata.set_i32s("tokenizer.ggml.token_type", v.types);
  // llama.cpp asks a byte-level vocabulary for its merges, be they none.
  if (v.model == "gpt2") metadata.set_strings("tokenizer.ggml.merges", v.merges);
  const auto id = [&](const char* key, std::optional<std::uint32_t> value) {
    if (value) metadata.set_u32(key, *value);
  };
  id("tokenizer.ggml.bos_token_id", v.bos);
  id("tokenizer.ggml.eos_token_id", v.eos);
  id("tokenizer.ggml.unknown_token_id", v.unknown);
  id("tokenizer.ggml.padding_token_id", v.padding);
  if (v.add_bos) metadata.set_bool("tokenizer.ggml.add_bos_token", *v.add_bos);
  if (v.add_eos) metadata.set_bool("tokenizer.ggml.add_eos_token", *v.add_eos);
  if (v.space_prefix) metadata.set_bool("tokenizer.ggml.add_space_prefix", *v.space_prefix);
}

void set_chat_template(const fs::path& directory, const Json& tokenizer_config, GgufMetadata& metadata) {
  if (fs::exists(directory / "chat_template.jinja")) {
    metadata.set_string("tokenizer.chat_template", read_file(directory / "chat_template.jinja", kMaxFile));
  } else if (tokenizer_config.contains("chat_template") && tokenizer_config["chat_template"].is_string()) {
    metadata.set_string("tokenizer.chat_template", tokenizer_config["chat_template"].get<std::string>());
  }
}

// ---- back to files

std::string get_text(const Gguf& file, const char* key) {
  const GgufValue* value = file.find(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? std::string() : *text;
}

std::int32_t get_id(const Gguf& file, const char* key, std::size_t size) {
  if (file.find(key) == nullptr) return -1;
  const std::int64_t id = file.get_int(key);
  require(id >= 0 && static_cast<std::size_t>(id) < size, "{}: {} is {}, outside the vocabulary",
          file.path().string(), key, id);
  return static_cast<std::int32_t>(id);
}

std::string sentencepiece_file(const Gguf& file) {
  const GgufArray& tokens = file.get_array("tokenizer.ggml.tokens");
  const GgufArray& scores = file.get_array("tokenizer.ggml.scores");
  const GgufArray& types = file.get_array("tokenizer.ggml.token_type");
  require(tokens.strings.size() == scores.floats.size() && tokens.strings.size() == types.signeds.size(),
          "{}: tokens, scores and token types differ in number", file.path().string());
  std::vector<WrittenPiece> pieces;
  for (std::size_t i = 0; i < tokens.strings.size(); ++i) {
    const std::int64_t type = types.signeds[i];
    require(type >= 1 && type <= 6, "{}: token {} has unknown type {}", file.path().string(), i, type);
    pieces.push_back(
        {std::string(tokens.strings[i]), static_cast<float>(scores.floats[i]), static_cast<PieceType>(type)});
  }
  WrittenPieceOptions options;
  options.bos_id = get_id(file, "tokenizer.ggml.bos_token_id", pieces.size());
  options.eos_id = get_id(file, "tokenizer.ggml.eos_token_id", pieces.size());
  options.unk_id = std::max(0, get_id(file, "tokenizer.ggml.unknown_token_id", pieces.size()));
  options.pad_id = get_id(file, "tokenizer.ggml.padding_token_id", pieces.size());
  if (file.find("tokenizer.ggml.add_space_prefix") != nullptr)
    options.add_dummy_prefix = file.get_bool("tokenizer.ggml.add_space_prefix");
  return write_sentencepiece_model(pieces, options);
}

// The pre-tokenizer of a name as the steps of a tokenizer.json.
Ordered pre_tokenizer_json(const GgufPreTokenizer& preset) {
  Ordered steps = Ordered::array();
  for (const std::string& pattern : preset.patterns)
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back(
      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// Adds the beginning and end tokens that the file asks for.
Ordered post_processor_json(const Gguf& file, const GgufPreTokenizer& preset, const GgufArray& tokens) {
  const auto flag = [&](const char* key, bool otherwise) {
    return file.find(key) == nullptr ? otherwise : file.get_bool(key);
  };
  const std::int32_t bos = get_id(file, "tokenizer.ggml.bos_token_id", tokens.strings.size());
  const std::int32_t eos = get_id(file, "tokenizer.ggml.eos_token_id", tokens.strings.size());
  Ordered single = Ordered::array(), special = Ordered::object();
  const auto add = [&](std::int32_t id) {
    const std::string text(tokens.strings[static_cast<std::size_t>(id)]);
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    special[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  };
  if (bos >= 0 && flag("tokenizer.ggml.add_bos_token", preset.add_bos)) add(bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (eos >= 0 && flag("tokenizer.ggml.add_eos_token", false)) add(eos);
  if (special.empty()) return nullptr;
  Ordered pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

// A tokenizer.json for a byte-level BPE vocabulary.
std::string json_file(const Gguf& file) {
  const GgufPreTokenizer preset =
      gguf_pre_tokenizer(get_text(file, "tokenizer.ggml.pre"), file.path().string());
  const GgufArray& tokens = file.get_array("tokenizer.ggml.tokens");
  const GgufArray& types = file.get_array("tokenizer.ggml.token_type");
  require(types.signeds.size() == tokens.strings.size(), "{}: tokens and token types differ in number",
          file.path().string());
  Json vocabulary = Json::object();  // a map: an ordered object looks through all of itself at each insertion
  Ordered added = Ordered::array(), merges = Ordered::array();
  for (std::size_t id = 0; id < tokens.strings.size(); ++id) {
    const std::string text(tokens.strings[id]);
    const std::int64_t type = types.signeds[id];
    vocabulary[text] = id;
    if (type == kControl || type == kUserDefined)
      added.push_back({{"id", id},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type == kControl}});
  }
  for (const std::string_view merge : file.get_array("tokenizer.ggml.merges").strings)
    merges.push_back(std::string(merge));
  Ordered json = {{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", added},
                  {"normalizer", nullptr}};
  json["pre_tokenizer"] = pre_tokenizer_json(preset);
  json["post_processor"] = post_processor_json(file, preset, tokens);
  json["decoder"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", preset.ignore_merges},
                   {"vocab", Ordered(vocabulary)},
                   {"merges", merges}};
  return json.dump(1, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

// A tokenizer_config.json out of the keys that llama.cpp's own files have.
std::string config_file(const Gguf& file) {
  const GgufArray& tokens = file.get_array("tokenizer.ggml.tokens");
  nlohmann::ordered_json json;
  const bool llama = get_text(file, "tokenizer.ggml.model") == "llama";
  json["tokenizer_class"] = llama ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
  for (const auto& [key, field] : {std::pair{"tokenizer.ggml.add_bos_token", "add_bos_token"},
                                   std::pair{"tokenizer.ggml.add_eos_token", "add_eos_token"}}) {
    if (file.find(key) != nullptr) json[field] = file.get_bool(key);
  }
  for (const auto& [key, field] : {std::pair{"tokenizer.ggml.bos_token_id", "bos_token"},
                                   std::pair{"tokenizer.ggml.eos_token_id", "eos_token"},
                                   std::pair{"tokenizer.ggml.unknown_token_id", "unk_token"},
                                   std::pair{"tokenizer.ggml.padding_token_id", "pad_token"}}) {
    const std::int32_t id = get_id(file, key, tokens.strings.size());
    if (id >= 0) json[field] = std::string(tokens.strings[static_cast<std::size_t>(id)]);
  }
  const std::string chat = get_text(file, "tokenizer.chat_template");
  if (!chat.empty()) json["chat_template"] = chat;
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

void add_tokenizer_metadata(const fs::path& directory, const ModelConfig& config, GgufMetadata& metadata) {
  const fs::path sentencepiece = directory / "tokenizer.model", json = directory / "tokenizer.json";
  const bool pieces = fs::exists(sentencepiece);
  if (!pieces && !fs::exists(json)) {
    log::warn("{}: no tokenizer.json or tokenizer.model; the file is written without a tokenizer",
              directory.string());
    return;
  }
  const fs::path config_path = directory / "tokenizer_config.json";
  const Json tokenizer_config = fs::exists(config_path) ? parse_json(config_path) : Json::object();
  Vocabulary vocabulary = pieces ? sentencepiece_vocabulary(sentencepiece) : json_vocabulary(json);
  apply_configs(tokenizer_config, config, vocabulary);
  fill_vocabulary(static_cast<std::size_t>(config.vocab_size), (pieces ? sentencepiece : json).string(),
                  vocabulary);
  set_vocabulary(vocabulary, metadata);
  set_chat_template(directory, tokenizer_config, metadata);
  if (fs::exists(json)) metadata.set_string("tokenizer.huggingface.json", read_file(json, kMaxFile));
  if (fs::exists(config_path))
    metadata.set_string("sinew.tokenizer_config", read_file(config_path, kMaxFile));
}

void write_tokenizer_files(const Gguf& file, const fs::path& directory) {
  if (file.find("tokenizer.ggml.tokens") == nullptr) {
    log::warn("{}: holds no tokenizer; the model is written without one", file.path().string());
    return;
  }
  const std::string json = get_text(file, "tokenizer.huggingface.json"),
                    config = get_text(file, "sinew.tokenizer_config");
  const bool llama = get_text(file, "tokenizer.ggml.model") == "llama";
  if (llama) write_file_atomic(directory / "tokenizer.model", sentencepiece_file(file));
  if (!json.empty() || !llama)
    write_file_atomic(directory / "tokenizer.json", json.empty() ? json_file(file) : json);
  write_file_atomic(directory / "tokenizer_config.json", config.empty() ? config_file(file) : config);
}

}  // namespace sinew
