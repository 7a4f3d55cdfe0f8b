// sinew eval: how good a model is.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "cli/commands.hpp"
#include "cli/engine_options.hpp"
#include "eval/perplexity.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> tasks{"perplexity"}, texts;
  eval::PerplexityOptions perplexity;
  EngineOptions engine;
  bool json = false;
};

void run(const Options& o) {
  for (const auto& task : o.tasks)
    require(task == "perplexity", "eval: no task '{}'; there is: perplexity", task);
  require(!o.texts.empty(), "eval: perplexity needs --text FILE");
  const auto tokenizer = load_tokenizer(o.model);
  const auto longest = engine::model_config(o.model).max_position_embeddings;
  const auto session =
      open_session(o.model, o.engine, std::min(longest, std::max<std::int64_t>(2048, o.perplexity.window)));
  catch_stop_signals();
  for (const auto& path : o.texts) {
    const std::string text = read_file(path);
    const auto about = static_cast<std::uint64_t>(text.size() / 4);
    Progress progress(
        fmt::format("perplexity of {}", path),
        o.perplexity.max_tokens > 0 ? static_cast<std::uint64_t>(o.perplexity.max_tokens) : about, "tokens");
    const auto r = eval::perplexity(*session, *tokenizer, text, o.perplexity, [&](std::int64_t scored) {
      progress.update(static_cast<std::uint64_t>(scored));
      return stop_requested() == 0;
    });
    progress.finish();
    if (stop_requested() != 0) throw Error("eval: stopped before the end of the text");
    if (o.json) {
      const nlohmann::ordered_json line{{"task", "perplexity"},
                                        {"model", o.model},
                                        {"text", path},
                                        {"tokens", r.tokens},
                                        {"scored", r.scored},
                                        {"bytes", r.bytes},
                                        {"nats_per_token", r.nats / static_cast<double>(r.scored)},
                                        {"standard_error", r.standard_error()},
                                        {"perplexity", r.per_token()},
                                        {"bits_per_byte", r.bits_per_byte()},
                                        {"seconds", r.seconds}};
      fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      fmt::print("{}: perplexity {:.4f} +- {:.4f} a token, {:.4f} bits a byte ({} tokens, {:.1f} s)\n", path,
                 r.per_token(), r.per_token() * r.standard_error(), r.bits_per_byte(), r.scored, r.seconds);
    }
  }
}

}  // namespace

void add_eval(Command app) {
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("eval", "Measure how good a model is");
  command.add_option("MODEL", options->model, "A GGUF file or a Hugging Face model directory").required();
  command.add_option("--tasks", options->tasks, "perplexity").delimiter(',').capture_default_str();
  command.add_option("--text", options->texts, "perplexity: a text file; more than one are measured in turn");
  command.add_option("--window", options->perplexity.window,
                     "perplexity: tokens seen at once (0: 2048 or the model's longest)");
  command.add_option("--stride", options->perplexity.stride,
                     "perplexity: how far windows move on (0: half a window)");
  command.add_option("--max-tokens", options->perplexity.max_tokens,
                     "perplexity: of the text's beginning; 0: all");
  command.add_flag("--json", options->json, "One JSON line a result");
  add_engine_options(command, options->engine);
  command.footer(
      "Every token but the first is scored once, with at least window - stride tokens before it where the "
      "text\n"
      "has them. Bits a byte compares models with different vocabularies.\n"
      "Examples:\n"
      "  sinew eval model.gguf --tasks perplexity --text wiki.test.txt\n"
      "  sinew eval MODEL --text a.txt --text b.txt --window 512 --json");
  command.callback([options] { run(*options); });
}

}  // namespace sinew::cli
