// sinew generate: text after a prompt, from a Hugging Face directory on the libtorch path.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/signals.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "model/generate.hpp"
#include "ops/device.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string model, prompt, dtype = "fp32", device = "auto";
  GenerateOptions generate;
  bool no_cache = false, json = false;
};

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void run(const Options& o) {
  check_sampling(o.generate.sampling);
  at::set_num_threads(default_threads());
  const auto device = find_device(o.device);
  const auto tokenizer = load_tokenizer(o.model);
  const auto model = load_model(o.model, find_number_type(o.dtype), device);
  const auto prompt = prompt_tokens(*tokenizer, o.prompt, model->config());
  auto ends = model->config().eos_token_ids;
  if (tokenizer->eos()) ends.push_back(*tokenizer->eos());

  TextStream stream(*tokenizer);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (!o.json) print(piece);
  };
  for (const auto id : prompt) show(stream.push(id));
  catch_stop_signals();
  const auto start = std::chrono::steady_clock::now();
  auto options = o.generate;
  options.cache = !o.no_cache;
  const auto result = generate(*model, prompt, options, ends, device, [&](TokenId id) {
    show(stream.push(id));
    return stop_requested() == 0;
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  show(stream.finish());
  if (!o.json) return print("\n");
  const nlohmann::ordered_json json{{"text", text},
                                    {"prompt_tokens", prompt},
                                    {"tokens", result.tokens},
                                    {"finish_reason", finish_name(result.finish)},
                                    {"seconds", seconds.count()}};
  print(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("generate", "Write text after a prompt");
  command->add_option("MODEL", options->model, "A Hugging Face model directory with its tokenizer")
      ->required();
  command->add_option("--prompt", options->prompt,
                      "The text to go on from (default: the model's beginning token)");
  command->add_option("--max-tokens", options->generate.max_tokens, "At most this many tokens")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->capture_default_str();
  auto& sampling = options->generate.sampling;
  command->add_option("--temperature", sampling.temperature, "0 takes the likeliest token")
      ->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "Only the K likeliest tokens; 0 for all")
      ->capture_default_str();
  command->add_option("--top-p", sampling.top_p, "Only the likeliest tokens that make up probability P")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "The same seed gives the same text")->capture_default_str();
  command->add_flag("--no-cache", options->no_cache, "Compute the whole text anew for every token");
  command->add_flag("--json", options->json, "One JSON object at the end instead of text as it comes");
  command->add_option("--dtype", options->dtype, "fp32, bf16 or fp64")->capture_default_str();
  command->add_option("--device", options->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command->footer(
      "Prints the prompt and what follows it. Ends at the model's end token or its longest context.\n"
      "Examples:\n"
      "  sinew generate MODEL --prompt \"Once upon a time\"\n"
      "  sinew generate MODEL --prompt \"Once upon a time\" --temperature 0.8 --top-p 0.95 --seed 7");
  command->callback([options] { run(*options); });
}

}  // namespace sinew::cli
