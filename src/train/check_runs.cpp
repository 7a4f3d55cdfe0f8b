#include "train/check_runs.hpp"

#include "base/error.hpp"
#include "train/step_bench.hpp"

namespace sinew {
namespace {

ModelConfig shaped(const std::string& preset, std::int64_t layers) {
  ModelConfig c = bench_preset(preset).model;
  c.num_hidden_layers = layers;
  c.max_position_embeddings = 4096;
  return c;
}

ModelConfig gpt_like() {
  ModelConfig c = shaped("gpt2", 3);
  c.vocab_size = 16384;
  return c;
}

// Mixtral's kind: grouped-query attention, two experts of eight a token.
ModelConfig mixtral_like() {
  ModelConfig c = shaped("gpt2", 3);
  c.model_type = "mixtral";
  c.hidden_size = 512;
  c.num_attention_heads = 8;
  c.num_key_value_heads = 2;
  c.vocab_size = 8192;
  c.tie_word_embeddings = false;
  c.moe.n_routed_experts = 8;
  c.moe.num_experts_per_tok = 2;
  c.moe.moe_intermediate_size = c.intermediate_size = 1024;
  c.moe.norm_topk_prob = true;
  return c;
}

ModelConfig with_mtp(ModelConfig c) {
  c.model_type = "deepseek_v3";
  c.moe.scoring_func = ScoringFunc::sigmoid;
  c.moe.topk_method = TopkMethod::noaux_tc;
  c.moe.n_group = 4;
  c.moe.topk_group = 2;
  c.num_nextn_predict_layers = 1;
  return c;
}

}  // namespace

std::vector<CheckRun> check_runs() {
  const auto f = at::kFloat, b = at::kBFloat16;
  const auto none = Recompute::none, full = Recompute::full;
  const ModelConfig moe = load_model_config("shakespeare-moe"),
                    dense = load_model_config("shakespeare-dense"), s = shaped("S", 6), m = shaped("M", 4),
                    gpt = gpt_like();
  return {
      {"shakespeare-moe", moe, {{8, 256, f}, 1, none}},
      {"shakespeare-moe", moe, {{16, 128, b}, 1, none}},
      {"shakespeare-dense", dense, {{8, 256, f}, 1, none}},
      {"shakespeare-dense", dense, {{4, 512, b}, 2, none}},
      {"S", s, {{16, 256, b}, 1, none}},
      {"S", s, {{4, 256, f}, 2, none}},
      {"S", s, {{4, 1024, b}, 1, none}},
      {"S", s, {{16, 256, b}, 1, full}},
      {"S with MTP", with_mtp(s), {{8, 256, b}, 1, none}},
      {"M, 4 layers", m, {{8, 512, b}, 1, none}},
      {"M, 4 layers", m, {{2, 512, b}, 4, none}},
      {"M, 4 layers", m, {{1, 2048, b}, 1, none}},
      {"gpt2, 3 layers", gpt, {{4, 512, b}, 1, none}},
      {"gpt2, 3 layers", gpt, {{1, 512, f}, 1, full}},
      {"mixtral-like", mixtral_like(), {{4, 512, b}, 1, none}},
      {"mixtral-like", mixtral_like(), {{2, 256, f}, 2, none}},
  };
}

std::vector<CheckRun> layout_check_runs(std::int64_t processes) {
  const auto f = at::kFloat, b = at::kBFloat16;
  const auto none = Recompute::none, full = Recompute::full;
  const ModelConfig moe = load_model_config("shakespeare-moe"),
                    dense = load_model_config("shakespeare-dense"), s = shaped("S", 6), m = shaped("M", 4);
  const auto piped = [](const char* schedule, std::int64_t chunks = 1) {
    return Layout{.data = 1, .pipeline = 2, .schedule = schedule, .chunks = chunks};
  };
  if (processes == 4)
    return {
        {"shakespeare-moe", moe, {{4, 128, f}, 1, none}, {.data = 4}},
        {"S", s, {{4, 256, b}, 1, none}, {.data = 2, .shard = 2}},
        {"S", s, {{4, 256, b}, 1, none}, {.data = 2, .tensor = 2, .expert = 2}},
        {"S", s, {{4, 256, b}, 4, none}, {.data = 2, .pipeline = 2, .expert = 2}},
        {"S", s, {{4, 256, b}, 8, none}, {.data = 1, .pipeline = 4}},
        {"S", s, {{4, 256, b}, 8, none}, {.data = 1, .pipeline = 4, .schedule = "zero-bubble"}},
    };
  require(processes == 2, "plan --here --check: layouts of 2 or 4 processes are checked, not of {}",
          processes);
  return {
      {"shakespeare-moe", moe, {{8, 256, f}, 1, none}, {.data = 2}},
      {"shakespeare-dense", dense, {{8, 256, b}, 1, none}, {.data = 2}},
      {"S", s, {{8, 256, b}, 1, none}, {.data = 2}},
      {"S", s, {{8, 256, b}, 1, full}, {.data = 2}},
      {"S", s, {{8, 256, b}, 1, none}, {.data = 1, .shard = 2, .zero = 1}},
      {"S", s, {{4, 256, b}, 2, none}, {.data = 1, .shard = 2, .zero = 2}},
      {"S", s, {{8, 256, f}, 1, none}, {.data = 1, .shard = 2, .zero = 3}},
      {"M, 4 layers", m, {{4, 512, b}, 1, none}, {.data = 1, .shard = 2, .zero = 3}},
      {"S", s, {{8, 256, b}, 1, none}, {.data = 2, .expert = 2}},
      {"M, 4 layers", m, {{4, 512, b}, 1, none}, {.data = 1, .shard = 2, .zero = 1, .expert = 2}},
      {"shakespeare-dense", dense, {{16, 256, f}, 1, none}, {.data = 1, .tensor = 2}},
      {"S", s, {{16, 256, b}, 1, none}, {.data = 1, .tensor = 2}},
      {"S", s, {{16, 256, b}, 1, none}, {.data = 1, .tensor = 2, .expert = 2}},
      {"S", s, {{4, 1024, b}, 1, none}, {.data = 1, .context = 2}},
      {"S", s, {{4, 256, b}, 8, none}, piped("gpipe")},
      {"S", s, {{4, 256, b}, 8, none}, piped("1f1b")},
      {"S", s, {{4, 256, b}, 8, none}, piped("interleaved", 2)},
      {"S", s, {{4, 256, b}, 8, none}, piped("zero-bubble")},
      {"S", s, {{4, 256, b}, 8, none}, piped("dualpipe-v")},
      {"M, 4 layers", m, {{2, 512, b}, 4, none}, piped("1f1b")},
  };
}

CheckedRun check_run(const CheckRun& run, int steps,
                     const std::function<double(const StepParts&, const StepLinks&)>& predict,
                     const std::shared_ptr<Mesh>& mesh) {
  const RunConfig::Optimizer optimizer;
  std::unique_ptr<LinkBench> links;
  if (mesh) links = std::make_unique<LinkBench>(run.model, run.shape.micro, mesh);
  PartBench parts(run.model, run.shape.micro, optimizer, mesh);
  RunBench bench(run.model, run.shape, optimizer, mesh);
  const auto round = [&] {
    parts.round();
    if (links) links->round();
  };
  bench.step();
  round();
  CheckedRun result{.best = 1e300};
  for (int i = 0; i < steps; ++i) {
    const double seconds = bench.step();
    round();
    result.measured += seconds / steps;
    result.best = std::min(result.best, seconds);
    result.worst = std::max(result.worst, seconds);
  }
  result.predicted = predict(parts.mean(), links ? links->mean() : StepLinks{});
  return result;
}

}  // namespace sinew
