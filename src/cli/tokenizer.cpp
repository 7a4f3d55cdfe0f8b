// sinew tokenizer: trains, applies and describes tokenizers.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "cli/commands.hpp"
#include "text/bpe_training.hpp"
#include "text/tokenizer.hpp"

namespace sinew::cli {
namespace {

struct TrainOptions {
  std::vector<std::string> inputs;
  std::string out, field = "text";
  BpeTrainingOptions training;
  bool no_special = false;
};

struct UseOptions {
  std::string tokenizer, file;
  std::vector<std::string> words;
  bool json = false, add_special = false, no_parse_special = false, skip_special = false;
};

void train(const TrainOptions& o) {
  catch_stop_signals();
  BpeTrainingOptions training = o.training;
  if (o.no_special) training.special_tokens.clear();
  train_tokenizer({o.inputs.begin(), o.inputs.end()}, training, o.field, o.out);
  log::info("wrote {}", o.out);
}

// The text of the command line, of --file, or of standard input.
std::string input_of(const UseOptions& o) {
  require(o.words.empty() || o.file.empty(), "tokenizer: give the text or --file, not both");
  if (!o.words.empty()) return join(o.words, " ");
  if (!o.file.empty() && o.file != "-") return read_file(o.file);
  std::ios::sync_with_stdio(false);
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void write_out(std::string_view text) {
  require(std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0,
          "standard output: {}", system_reason());
}

void encode(const UseOptions& o) {
  const auto tokenizer = load_tokenizer(o.tokenizer);
  const auto ids = tokenizer->encode(input_of(o), o.add_special, !o.no_parse_special);
  std::string out;
  for (const TokenId id : ids) {
    if (!out.empty()) out += o.json ? ',' : ' ';
    out += fmt::format_int(id).c_str();
  }
  write_out(o.json ? "[" + out + "]\n" : out + "\n");
}

// A JSON list of ids, or ids separated by white space or commas.
std::vector<TokenId> parse_ids(const std::string& text) {
  std::vector<TokenId> ids;
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string::npos) return ids;
  std::string list = text.substr(start);
  if (list[0] != '[') {
    for (char& c : list)
      if (c == ',') c = ' ';
    for (std::size_t at = 0; (at = list.find_first_not_of(" \t\r\n", at)) != std::string::npos;) {
      const std::size_t end = std::min(list.find_first_of(" \t\r\n", at), list.size());
      const std::string word = list.substr(at, end - at);
      require(word.size() <= 9 && word.find_first_not_of("0123456789") == std::string::npos,
              "tokenizer decode: \"{}\" is not a token id", word.substr(0, 40));
      ids.push_back(static_cast<TokenId>(std::stol(word)));
      at = end;
    }
    return ids;
  }
  const auto value = nlohmann::json::parse(list, nullptr, false);
  require(value.is_array(), "tokenizer decode: the input is not a JSON list of token ids");
  for (const auto& id : value) {
    require(id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() <= 999999999,
            "tokenizer decode: {} is not a token id", id.dump().substr(0, 40));
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

void decode(const UseOptions& o) {
  const auto tokenizer = load_tokenizer(o.tokenizer);
  const std::string text = tokenizer->decode(parse_ids(input_of(o)), o.skip_special);
  // JSON cannot hold bytes that are not UTF-8: they become U+FFFD there, and only there.
  if (o.json)
    write_out(nlohmann::json{{"text", text}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
              "\n");
  else
    write_out(text);
}

void info(const UseOptions& o) {
  const auto tokenizer = load_tokenizer(o.tokenizer);
  nlohmann::ordered_json facts = {{"kind", tokenizer->kind()}, {"vocab_size", tokenizer->vocab_size()}};
  const auto describe = [&](const char* name, std::optional<TokenId> id) {
    if (id)
      facts[name] = {{"id", *id}, {"text", tokenizer->token_text(*id)}};
    else
      facts[name] = nullptr;
  };
  describe("bos", tokenizer->bos());
  describe("eos", tokenizer->eos());
  auto special = nlohmann::ordered_json::array();
  for (TokenId id = 0; id < tokenizer->vocab_size(); ++id)
    if (tokenizer->is_special(id)) special.push_back({{"id", id}, {"text", tokenizer->token_text(id)}});
  facts["special_tokens"] = special;
  facts["prefix_and_suffix"] = tokenizer->encode("", true);
  if (o.json) return write_out(facts.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  const auto named = [](const nlohmann::ordered_json& token) {
    return token.is_null()
               ? std::string("none")
               : fmt::format("{} (id {})", token["text"].get<std::string>(), token["id"].get<TokenId>());
  };
  fmt::print("kind            {}\n", tokenizer->kind());
  fmt::print("vocabulary      {} tokens\n", with_commas(static_cast<std::uint64_t>(tokenizer->vocab_size())));
  fmt::print("BOS             {}\nEOS             {}\n", named(facts["bos"]), named(facts["eos"]));
  fmt::print("special tokens  {}\n", special.size());
  for (std::size_t i = 0; i < special.size() && i < 20; ++i)
    fmt::print("  {:>8}  {}\n", special[i]["id"].get<TokenId>(), special[i]["text"].get<std::string>());
  if (special.size() > 20) fmt::print("  {} more (--json lists all)\n", special.size() - 20);
}

void add_learn(Command parent) {
  auto o = std::make_shared<TrainOptions>();
  Command command = parent.add_subcommand("train", "Learn a byte-level BPE from text");
  command.footer(
      "Reads text files, .jsonl (a text field), .gz, .zst and .bz2 of them, and folders; writes a Hugging "
      "Face\n"
      "tokenizer.json. The result depends on the text alone.\n"
      "Examples:\n"
      "  sinew tokenizer train corpus/ --vocab-size 32768 --out tokenizer.json\n"
      "  sinew tokenizer train a.txt b.jsonl.gz --special '<|user|>' --special '<|end|>' --out "
      "tokenizer.json");
  command.add_option("text", o->inputs, "Files or folders").required();
  command.add_option("--vocab-size", o->training.vocab_size, "Tokens in all: special ones, 256 bytes, merges")
      .capture_default_str();
  command.add_option("--out", o->out, "Where to write the tokenizer.json").required();
  command.add_option("--special", o->training.special_tokens, "Special tokens, numbered from 0")
      .capture_default_str();
  command.add_flag("--no-special", o->no_special, "No special tokens at all");
  command.add_option("--min-count", o->training.min_count, "Do not merge pairs that are rarer")
      .capture_default_str();
  command.add_option("--field", o->field, "The field of JSON lines that holds the text")
      .capture_default_str();
  command.callback([o] { train(*o); });
}

Command add_use(Command parent, const char* name, const char* help, const char* input,
                void (*run)(const UseOptions&)) {
  auto o = std::make_shared<UseOptions>();
  Command command = parent.add_subcommand(name, help);
  command
      .add_option("tokenizer", o->tokenizer,
                  "tokenizer.json, tokenizer.model, GGUF file, or a folder with one")
      .required();
  command.add_flag("--json", o->json, "JSON out");
  if (input != nullptr) {
    command.add_option("input", o->words, std::string(input) + " (default: standard input)");
    command.add_option("--file", o->file, "Read the input from this file (- for standard input)");
  }
  if (std::string_view(name) == "encode") {
    command.add_flag("--add-special", o->add_special, "Add the BOS and EOS tokens that the file asks for");
    command.add_flag("--no-parse-special", o->no_parse_special,
                     "Special tokens written in the text are mere text");
  }
  if (std::string_view(name) == "decode")
    command.add_flag("--skip-special", o->skip_special, "Leave special tokens out");
  command.callback([o, run] { run(*o); });
  return command;
}

}  // namespace

void add_tokenizer(Command app) {
  Command command = app.add_subcommand("tokenizer", "Train, apply and describe tokenizers");
  command.require_subcommand(1);
  command.footer(
      "Examples:\n"
      "  sinew tokenizer train corpus/ --vocab-size 32768 --out tokenizer.json\n"
      "  sinew tokenizer encode tokenizer.json 'Hello world'\n"
      "  sinew tokenizer encode model.gguf --file book.txt --json > ids.json\n"
      "  sinew tokenizer decode tokenizer.json --file ids.json > book.txt\n"
      "  sinew tokenizer info DeepSeek-V3/");
  add_learn(command);
  add_use(command, "encode", "Text to token ids", "Text", encode)
      .footer(
          "Examples:\n  sinew tokenizer encode tokenizer.json 'Hello world'\n"
          "  sinew tokenizer encode tokenizer.model --file book.txt --json > ids.json");
  add_use(command, "decode", "Token ids to the exact bytes", "Ids, or a JSON list of them", decode)
      .footer(
          "Examples:\n  sinew tokenizer decode tokenizer.json 15496 995\n"
          "  sinew tokenizer decode tokenizer.json --file ids.json > book.txt");
  add_use(command, "info", "Kind, size and special tokens", nullptr, info)
      .footer("Example:\n  sinew tokenizer info tokenizer.model");
}

}  // namespace sinew::cli
