// sinew generate: text after a prompt, on the engine or on libtorch.
#include "cli/generate.hpp"

#include <fmt/format.h>

#include <memory>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/engine_options.hpp"
#include "cli/text_output.hpp"
#include "engine/speculate.hpp"

namespace sinew::cli {
namespace {

struct Options {
  GenerateCommand command;
  EngineOptions engine;
  std::string draft = "none";
  std::int64_t draft_tokens = 0;
  bool torch = false, on_engine = false, timings = false;
};

void print_timings(std::size_t prompt, const engine::Generation& g, const engine::SpeculationCounts& counts) {
  fmt::print(stderr, "prompt {} tokens, {:.1f}/s; generated {}, {:.1f}/s\n", prompt,
             static_cast<double>(prompt) / g.prefill_seconds, g.tokens.size(),
             static_cast<double>(g.tokens.size()) / g.decode_seconds);
  if (counts.drafted > 0)
    fmt::print(stderr, "{} passes; {} of {} drafted tokens were right\n", counts.passes, counts.accepted,
               counts.drafted);
}

void run_on_engine(const GenerateCommand& o, const Options& options) {
  engine::check_sampling(o.sampling);
  const auto tokenizer = load_tokenizer(o.model);
  const ModelConfig config = engine::model_config(o.model);
  const auto prompt = prompt_tokens(*tokenizer, o.prompt, config);
  const auto most = config.max_position_embeddings, length = static_cast<std::int64_t>(prompt.size());
  require(length <= most, "the prompt has {} tokens, but the model's max_position_embeddings is {}", length,
          most);
  const auto session = open_session(o.model, options.engine, length + o.max_tokens);
  TextOutput output(*tokenizer, prompt, o.json);
  engine::Sampler sampler(o.sampling);
  engine::Sequence sequence = session->make_sequence();
  const auto ends = engine::end_tokens(session->model().config, *tokenizer);
  engine::SpeculationCounts counts;
  const auto result = engine::generate_speculatively(
      *session, sequence, prompt, sampler, o.max_tokens, ends,
      {engine::parse_draft(options.draft), options.draft_tokens}, [&](TokenId id) { return output.push(id); },
      &counts);
  output.finish(result.tokens, {{"finish_reason", engine::finish_name(result.finish)},
                                {"prefill_seconds", result.prefill_seconds},
                                {"decode_seconds", result.decode_seconds},
                                {"seconds", result.prefill_seconds + result.decode_seconds}});
  if (options.timings && !o.json) {
    print_timings(prompt.size(), result, counts);
    print_expert_counts(*session);
  }
}

void run(const Options& options, Command command) {
  const GenerateCommand& o = options.command;
  const bool torch_only = o.no_cache || command.count("--dtype") > 0 || command.count("--device") > 0;
  require(!(options.on_engine && (options.torch || torch_only)),
          "generate: --torch, --no-cache, --dtype and --device are for the libtorch path, not for --engine");
  if (!options.torch && !torch_only) return run_on_engine(o, options);
#ifdef SINEW_TRAIN
  generate_with_torch(o);
#else
  fail(
      "generate: this build has no libtorch path (SINEW_TRAIN=OFF): leave out --torch, --no-cache, --dtype "
      "and "
      "--device");
#endif
}

}  // namespace

void add_generate(Command app) {
  auto options = std::make_shared<Options>();
  GenerateCommand& o = options->command;
  Command command = app.add_subcommand("generate", "Write text after a prompt");
  command.add_option("MODEL", o.model, "A GGUF file, or a Hugging Face model directory with its tokenizer")
      .required();
  command.add_option("--prompt", o.prompt, "The text to go on from (default: the model's beginning token)");
  command.add_option("--max-tokens", o.max_tokens, "At most this many tokens")
      .range(std::int64_t{1}, std::int64_t{1} << 30)
      .capture_default_str();
  add_sampling_options(command, o.sampling);
  command.add_flag("--json", o.json, "One JSON object at the end instead of text as it comes");
  command.add_flag("--timings", options->timings, "Tokens a second on standard error");
  add_engine_options(command, options->engine);
  command
      .add_option(
          "--draft", options->draft,
          "Several tokens a pass, the same text: none, lookup (repeated passages), mtp (the model's own "
          "prediction layers) or auto")
      .capture_default_str();
  command.add_option("--draft-tokens", options->draft_tokens, "Tokens of a draft, at most 7; 0 chooses")
      .range(0, 7)
      .capture_default_str();
  command.add_flag("--engine", options->on_engine, "On the inference engine: the default");
  command.add_flag("--torch", options->torch, "On the libtorch path that trains (Hugging Face directories)");
  command.add_flag("--no-cache", o.no_cache, "libtorch path: compute the whole text anew for every token");
  command.add_option("--dtype", o.dtype, "libtorch path: fp32, bf16 or fp64").capture_default_str();
  command.add_option("--device", o.device, "libtorch path: auto, cpu, cuda or cuda:N").capture_default_str();
  command.footer(
      "Prints the prompt and what follows it. Ends at the model's end token or its longest context.\n"
      "Examples:\n"
      "  sinew generate model.gguf --prompt \"Once upon a time\"\n"
      "  sinew generate MODEL --prompt \"Once upon a time\" --temperature 0.8 --top-p 0.95 --seed 7");
  command.callback([options, command] { run(*options, command); });
}

}  // namespace sinew::cli
