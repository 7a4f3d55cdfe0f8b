// sinew chat: a conversation with a model in the terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "cli/commands.hpp"
#include "cli/engine_options.hpp"
#include "cli/text_output.hpp"
#include "engine/generate.hpp"
#include "text/chat_template.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string model, system, format;
  EngineOptions engine;
  engine::Sampling sampling{.temperature = 0.7, .top_p = 0.95};
  std::int64_t max_tokens = 2048;
};

ChatFormat find_format(const Options& o) {
  if (!o.format.empty()) return parse_chat_format(o.format);
  const std::string text = find_chat_template(o.model);
  if (const auto format = recognise_chat_template(text)) return *format;
  log::warn("{}: {}; using 'plain' (choose one with --format)", o.model,
            text.empty() ? "has no chat template" : "its chat template is not one that is known");
  return ChatFormat::plain;
}

class Conversation {
 public:
  explicit Conversation(const Options& o)
      : options_(o),
        format_(find_format(o)),
        tokenizer_(load_tokenizer(o.model)),
        session_(open_session(o.model, o.engine, 8192)),
        sequence_(session_->make_sequence()),
        ends_(engine::end_tokens(session_->model().config, *tokenizer_)) {
    clear();
  }

  ChatFormat format() const { return format_; }
  void clear() {
    messages_.clear();
    if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  }

  void answer(const std::string& question) {
    messages_.push_back({"user", question});
    const auto ids = tokenizer_->encode(render_chat(format_, messages_));
    engine::Sampler sampler(options_.sampling);
    const auto fresh = reuse(ids, sampler);
    std::string text;
    TextStream stream(*tokenizer_);
    const std::string_view stop = chat_stop_text(format_);
    clear_stop_request();
    const auto result =
        engine::generate(*session_, sequence_, fresh, sampler, options_.max_tokens, ends_, [&](TokenId id) {
          held_.push_back(id);
          return show(stream.push(id), stop, text) && stop_requested() == 0;
        });
    if (result.finish != engine::Finish::stopped || stop_requested() != 0) show(stream.finish(), stop, text);
    print("\n");
    if (result.finish == engine::Finish::context_full) log::warn("the context is full: /clear begins anew");
    clear_stop_request();
    messages_.push_back({"assistant", text});
  }

 private:
  // Keeps what the cache holds of `ids`, forgets the rest; the tokens still to run.
  std::vector<TokenId> reuse(const std::vector<TokenId>& ids, engine::Sampler& sampler) {
    std::size_t same = 0;
    const auto held = static_cast<std::size_t>(sequence_.length());
    while (same < std::min(held, held_.size()) && same + 1 < ids.size() && held_[same] == ids[same]) ++same;
    sequence_.truncate(static_cast<index_t>(same));
    held_ = ids;
    for (std::size_t i = 0; i < same; ++i) sampler.accept(ids[i]);
    return {ids.begin() + static_cast<std::ptrdiff_t>(same), ids.end()};
  }

  // Prints what is certain not to be the stop text; false once that has come.
  bool show(const std::string& piece, std::string_view stop, std::string& text) {
    const std::size_t before = text.size();
    text += piece;
    if (!stop.empty()) {
      const auto at = text.find(stop, before > stop.size() ? before - stop.size() : 0);
      if (at != std::string::npos) {
        text.resize(at);
        if (at > before) print(std::string_view(text).substr(before));
        return false;
      }
    }
    print(piece);
    return true;
  }

  const Options& options_;
  ChatFormat format_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<engine::Session> session_;
  engine::Sequence sequence_;
  std::vector<std::int64_t> ends_;
  std::vector<ChatMessage> messages_;
  std::vector<TokenId> held_;  // what the sequence was given
};

void run(const Options& o) {
  engine::check_sampling(o.sampling);
  Conversation conversation(o);
  const bool terminal = ::isatty(0) != 0;
  if (terminal)
    fmt::print(stderr, "format {}; /clear forgets, /exit or Ctrl-D leaves, Ctrl-C stops an answer\n",
               chat_format_name(conversation.format()));
  catch_stop_signals();
  for (std::string line;;) {
    if (terminal) print("> ");
    if (!std::getline(std::cin, line)) break;
    if (stop_requested() != 0 || line == "/exit") break;
    if (line == "/clear")
      conversation.clear();
    else if (!line.empty())
      conversation.answer(line);
  }
  if (terminal) print("\n");
}

}  // namespace

void add_chat(Command app) {
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("chat", "Talk with a model");
  command.add_option("MODEL", options->model, "A GGUF file or a Hugging Face model directory").required();
  command.add_option("--system", options->system, "What the model is told before the conversation");
  command.add_option("--format", options->format,
                     fmt::format("How messages are written: {} (default: by the model's template)",
                                 fmt::join(chat_format_names(), ", ")));
  command.add_option("--max-tokens", options->max_tokens, "At most this many tokens an answer")
      .range(std::int64_t{1}, std::int64_t{1} << 30)
      .capture_default_str();
  add_sampling_options(command, options->sampling);
  add_engine_options(command, options->engine);
  command.footer(
      "Reads a question a line from standard input; answers come as they are made.\n"
      "Examples:\n"
      "  sinew chat model.gguf\n"
      "  sinew chat model.gguf --system \"Answer in verse.\" --temperature 1 --min-p 0.05\n"
      "  echo \"What is a river?\" | sinew chat MODEL --temperature 0");
  command.callback([options] { run(*options); });
}

}  // namespace sinew::cli
