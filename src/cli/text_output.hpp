// Text on its way to standard output.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/signals.hpp"
#include "text/text_stream.hpp"

namespace sinew::cli {

inline void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// A prompt and what follows it: shown as it comes, or as one JSON object at the end.
class TextOutput {
 public:
  TextOutput(const Tokenizer& tokenizer, std::span<const TokenId> prompt, bool json)
      : stream_(tokenizer), prompt_(prompt.begin(), prompt.end()), json_(json) {
    for (const auto id : prompt) show(stream_.push(id));
    catch_stop_signals();
  }

  // False when a signal asks to stop.
  bool push(TokenId id) {
    show(stream_.push(id));
    return stop_requested() == 0;
  }

  // `more`: what the object says after the tokens.
  void finish(std::span<const TokenId> tokens, const nlohmann::ordered_json& more) {
    show(stream_.finish());
    if (!json_) return print("\n");
    nlohmann::ordered_json json{{"text", text_}, {"prompt_tokens", prompt_}, {"tokens", tokens}};
    json.update(more);
    print(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }

 private:
  void show(const std::string& piece) {
    text_ += piece;
    if (!json_) print(piece);
  }

  TextStream stream_;
  std::vector<TokenId> prompt_;
  bool json_;
  std::string text_;
};

}  // namespace sinew::cli
