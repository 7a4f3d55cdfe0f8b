// sinew generate on the libtorch path, from a Hugging Face directory.
#include "cli/generate.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/threads.hpp"
#include "cli/text_output.hpp"
#include "model/generate.hpp"
#include "ops/device.hpp"

namespace sinew::cli {
namespace {

// This path has temperature, top-k and top-p alone.
SamplingOptions own_sampling(const engine::Sampling& s) {
  const engine::Sampling plain{
      .temperature = s.temperature, .top_k = s.top_k, .top_p = s.top_p, .seed = s.seed};
  require(s == plain, "generate: the libtorch path has --temperature, --top-k, --top-p and --seed only");
  return {.temperature = s.temperature, .top_k = s.top_k, .top_p = s.top_p, .seed = s.seed};
}

}  // namespace

void generate_with_torch(const GenerateCommand& o) {
  GenerateOptions options{
      .sampling = own_sampling(o.sampling), .max_tokens = o.max_tokens, .cache = !o.no_cache};
  check_sampling(options.sampling);
  at::set_num_threads(default_threads());
  const auto device = find_device(o.device);
  const auto tokenizer = load_tokenizer(o.model);
  const auto model = load_model(o.model, find_number_type(o.dtype), device);
  const auto prompt = prompt_tokens(*tokenizer, o.prompt, model->config());
  auto ends = model->config().eos_token_ids;
  if (tokenizer->eos()) ends.push_back(*tokenizer->eos());

  TextOutput output(*tokenizer, prompt, o.json);
  const double start = clock_seconds();
  const auto result =
      generate(*model, prompt, options, ends, device, [&](TokenId id) { return output.push(id); });
  const double seconds = clock_seconds() - start;
  output.finish(result.tokens, {{"finish_reason", finish_name(result.finish)}, {"seconds", seconds}});
}

}  // namespace sinew::cli
