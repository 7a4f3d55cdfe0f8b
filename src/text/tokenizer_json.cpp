#include "text/tokenizer_json.hpp"

#include <algorithm>

#include "text/pipeline_tokenizer.hpp"

namespace sinew {
namespace {

using nlohmann::json;

json parse_json(std::string_view text, const std::string& origin) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    fail("{}: not valid JSON: {}", origin, error.what());
  }
}

std::shared_ptr<Vocabulary> parse_vocabulary(const JsonPlace& model, const std::string& origin) {
  const json& vocab = model.get("vocab");
  require(vocab.is_object(), "{}.vocab must be an object", model.where);
  auto vocabulary = std::make_shared<Vocabulary>();
  for (const auto& [text, id] : vocab.items()) {
    require(id.is_number_integer(), "{}.vocab: the id of \"{}\" must be a whole number", model.where, text);
    vocabulary->add(text, id.get<std::int64_t>(), origin);
  }
  return vocabulary;
}

// "left right", or ["left", "right"].
std::pair<std::string, std::string> parse_merge(const json& merge, const JsonPlace& model, std::size_t rank) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    require(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
            "{}.merges: merge {} must be two tokens separated by a space", model.where, rank);
    return {text.substr(0, space), text.substr(space + 1)};
  }
  require(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
          "{}.merges: merge {} must be \"left right\" or [left, right]", model.where, rank);
  return {merge[0].get<std::string>(), merge[1].get<std::string>()};
}

std::vector<std::pair<TokenId, TokenId>> parse_merges(const JsonPlace& model, const Vocabulary& vocabulary) {
  std::vector<std::pair<TokenId, TokenId>> merges;
  const json& list = model.list("merges");
  merges.reserve(list.size());
  for (const auto& merge : list) {
    if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = parse_merge(merge, model, merges.size());
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right);
    require(left_id && right_id, "{}.merges: \"{}\" is not in the vocabulary", model.where,
            left_id ? right : left);
    merges.emplace_back(*left_id, *right_id);
  }
  return merges;
}

BpeOptions parse_options(const JsonPlace& model, const Vocabulary& vocabulary) {
  BpeOptions options;
  options.byte_fallback = model.flag("byte_fallback", false);
  options.fuse_unk = model.flag("fuse_unk", false);
  options.ignore_merges = model.flag("ignore_merges", false);
  options.continuing_subword_prefix = model.text("continuing_subword_prefix", "");
  options.end_of_word_suffix = model.text("end_of_word_suffix", "");
  if (model.find("unk_token") != nullptr) {
    options.unk = vocabulary.find(model.text("unk_token"));
    require(options.unk.has_value(), "{}.unk_token \"{}\" is not in the vocabulary", model.where,
            model.text("unk_token"));
  }
  const json* dropout = model.find("dropout");
  require(dropout == nullptr || (dropout->is_number() && dropout->get<double>() == 0),
          "{}.dropout is set: encoding would be random, which is not supported", model.where);
  return options;
}

std::vector<AddedToken> parse_added(const JsonPlace& root, const Vocabulary& vocabulary) {
  std::vector<AddedToken> added;
  if (root.find("added_tokens") == nullptr) return added;
  for (const auto& item : root.list("added_tokens")) {
    const JsonPlace place = root.enter(item, "added_tokens");
    AddedToken token;
    const std::int64_t id = place.integer("id");
    token.content = place.text("content");
    if (token.content.empty()) continue;
    require(id >= 0 && id < Vocabulary::kMaxSize, "{}: the id {} of \"{}\" is out of range", place.where, id,
            token.content);
    token.id = static_cast<TokenId>(id);
    const auto in_vocabulary = vocabulary.find(token.content);
    require(!in_vocabulary || *in_vocabulary == token.id,
            "{}: \"{}\" has the id {} here and {} in the vocabulary", place.where, token.content, token.id,
            in_vocabulary.value_or(0));
    token.special = place.flag("special", false);
    token.single_word = place.flag("single_word", false);
    token.lstrip = place.flag("lstrip", false);
    token.rstrip = place.flag("rstrip", false);
    token.normalized = place.flag("normalized", !token.special);
    added.push_back(std::move(token));
  }
  return added;
}

std::vector<TokenId> template_ids(const JsonPlace& place, const std::string& name) {
  const json* tokens = place.find("special_tokens");
  require(tokens != nullptr && tokens->is_object() && tokens->contains(name),
          "{}.special_tokens has no \"{}\"", place.where, name);
  const JsonPlace token = place.enter((*tokens)[name], "special_tokens");
  std::vector<TokenId> ids;
  for (const auto& id : token.list("ids")) {
    require(id.is_number_integer() && id.get<std::int64_t>() >= 0 &&
                id.get<std::int64_t>() < Vocabulary::kMaxSize,
            "{}.ids of \"{}\" must be token ids", token.where, name);
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

// ["</s>", 2]
TokenId pair_id(const JsonPlace& place, const char* name) {
  const json& pair = place.get(name);
  require(pair.is_array() && pair.size() == 2 && pair[1].is_number_integer() &&
              pair[1].get<std::int64_t>() >= 0 && pair[1].get<std::int64_t>() < Vocabulary::kMaxSize,
          "{}.{} must be [token, id]", place.where, name);
  return pair[1].get<TokenId>();
}

void parse_post_processor(const JsonPlace& place, TokenizerParts& parts) {
  const std::string type = place.text("type");
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "Sequence") {
    for (const auto& inner : place.list("processors"))
      parse_post_processor(place.enter(inner, "processors"), parts);
    return;
  }
  std::vector<TokenId> before, after;
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    before = {pair_id(place, "cls")};
    after = {pair_id(place, "sep")};
  } else if (type == "TemplateProcessing") {
    bool seen = false;
    for (const auto& item : place.list("single")) {
      const JsonPlace piece = place.enter(item, "single");
      if (piece.find("SpecialToken") != nullptr) {
        const auto ids =
            template_ids(place, piece.enter(piece.get("SpecialToken"), "SpecialToken").text("id"));
        auto& side = seen ? after : before;
        side.insert(side.end(), ids.begin(), ids.end());
      } else {
        require(piece.find("Sequence") != nullptr && !seen, "{}: only one sequence is supported",
                piece.where);
        seen = true;
      }
    }
  } else {
    fail(
        "{}: the post-processor \"{}\" is not supported (supported: TemplateProcessing, ByteLevel, "
        "RobertaProcessing, "
        "BertProcessing, Sequence)",
        place.where, type);
  }
  parts.prefix.insert(parts.prefix.begin(), before.begin(), before.end());
  parts.suffix.insert(parts.suffix.end(), after.begin(), after.end());
}

std::optional<TokenId> token_of(const TokenizerParts& parts, const std::string& text) {
  for (const AddedToken& token : parts.added)
    if (token.content == text) return token.id;
  return parts.vocabulary->find(text);
}

// "<s>", or {"content": "<s>", ..}
std::optional<TokenId> named_token(const JsonPlace& config, const char* name, const TokenizerParts& parts) {
  const json* field = config.find(name);
  if (field == nullptr) return std::nullopt;
  if (field->is_string()) return token_of(parts, field->get<std::string>());
  if (field->is_object() && field->contains("content") && (*field)["content"].is_string())
    return token_of(parts, (*field)["content"].get<std::string>());
  return std::nullopt;
}

std::optional<TokenId> well_known(const TokenizerParts& parts, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const auto id = token_of(parts, name)) return id;
  return std::nullopt;
}

// transformers' Llama and Gemma classes rebuild the post-processor from add_bos_token and add_eos_token.
void apply_config(std::string_view text, const std::string& origin, TokenizerParts& parts) {
  const json value = text.empty() ? json::object() : parse_json(text, origin);
  const JsonPlace config{value, origin + ":"};
  parts.bos = named_token(config, "bos_token", parts);
  parts.eos = named_token(config, "eos_token", parts);
  if (!parts.bos)
    parts.bos = well_known(parts, {"<s>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<bos>"});
  if (!parts.eos)
    parts.eos =
        well_known(parts, {"</s>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "<|endoftext|>"});
  const json* kind = config.find("tokenizer_class");
  const std::string name = kind != nullptr && kind->is_string() ? kind->get<std::string>() : "";
  const bool rebuilds =
      name.starts_with("Llama") || name.starts_with("CodeLlama") || name.starts_with("Gemma");
  if (!rebuilds || (config.find("add_bos_token") == nullptr && config.find("add_eos_token") == nullptr))
    return;
  parts.prefix.clear();
  parts.suffix.clear();
  if (config.flag("add_bos_token", true) && parts.bos) parts.prefix.push_back(*parts.bos);
  if (config.flag("add_eos_token", false) && parts.eos) parts.suffix.push_back(*parts.eos);
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text, std::string_view config,
                                                const std::string& origin) {
  const json value = parse_json(text, origin);
  const JsonPlace root{value, origin + ":"};
  const JsonPlace model = root.enter(root.get("model"), "model");
  const std::string type = model.text("type", "BPE");
  require(type == "BPE", "{}: the model \"{}\" is not supported (supported: BPE)", origin, type);

  TokenizerParts parts;
  const auto vocabulary = parse_vocabulary(model, origin);
  parts.vocabulary = vocabulary;
  parts.added = parse_added(root, *vocabulary);
  if (const json* field = root.find("normalizer"))
    parts.normalizer = parse_normalizer(root.enter(*field, "normalizer"));
  if (const json* field = root.find("pre_tokenizer"))
    parts.pre_tokenizer = parse_pre_tokenizer(root.enter(*field, "pre_tokenizer"));
  if (const json* field = root.find("post_processor"))
    parse_post_processor(root.enter(*field, "post_processor"), parts);

  BpeOptions options = parse_options(model, *vocabulary);
  options.bytes = parts.pre_tokenizer.ends_with_map_bytes();
  if (options.bytes) parts.pre_tokenizer.drop_last();  // the model takes the bytes as they are
  if (const json* field = root.find("decoder")) {
    parts.decoder = parse_decoder(root.enter(*field, "decoder"));
  } else if (options.bytes) {
    parts.decoder.add(DecodeByteLevel{});
  } else {
    parts.decoder.set_separator(" ");
  }
  parts.kind = options.bytes           ? "byte-level BPE (tokenizer.json)"
               : options.byte_fallback ? "BPE with byte fallback (tokenizer.json)"
                                       : "BPE (tokenizer.json)";
  parts.model =
      std::make_unique<Bpe>(vocabulary, parse_merges(model, *vocabulary), std::move(options), origin);
  apply_config(config, origin + " with tokenizer_config.json", parts);
  return make_pipeline_tokenizer(std::move(parts));
}

}  // namespace sinew
