#include "plan/runs.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "base/error.hpp"
#include "base/files.hpp"
#include "plan/row_reader.hpp"

namespace sinew::plan {
namespace {

using nlohmann::json;

Network parse_network(const json& m, const std::string& row) {
  Network n;
  n.name = text(m, "family");
  n.layers = whole(m, "layers");
  n.hidden = whole(m, "hidden");
  n.vocab = whole(m, "vocab", 50000);
  require(n.layers > 0 && n.hidden > 0 && n.layers < 100000 && n.hidden < 10000000,
          "{}: model.layers and model.hidden must be given", row);
  n.heads = whole(m, "heads");
  n.head_dim = whole(m, "head_dim");
  if (n.heads <= 0)
    n.heads = n.head_dim > 0 ? n.hidden / n.head_dim : std::max<std::int64_t>(1, n.hidden / 128);
  if (n.head_dim <= 0) n.head_dim = std::max<std::int64_t>(1, n.hidden / n.heads);
  n.kv_heads = whole(m, "kv_heads", n.heads);
  if (n.kv_heads <= 0) n.kv_heads = n.heads;
  n.value_dim = n.head_dim;
  n.gated = given(m, "ffn_gated") ? truth(m, "ffn_gated") : has(lower(text(m, "activation")), "glu");
  n.ffn = whole(m, "ffn", n.gated ? n.hidden * 8 / 3 : 4 * n.hidden);
  n.tied = truth(m, "tied_embeddings");
  n.biases = !n.gated && has(lower(text(m, "activation")), "gelu");
  const std::string attention = lower(text(m, "attention"));
  const json& mla = part(m, "mla");
  if (has(attention, "mla") || !mla.empty()) {
    n.mla = true;
    n.q_lora = whole(mla, "q_lora_rank");
    n.kv_lora = whole(mla, "kv_lora_rank", 512);
    n.rope_dim = whole(mla, "qk_rope_head_dim", 64);
    n.head_dim = whole(mla, "qk_nope_head_dim", 128) + n.rope_dim;
    n.value_dim = whole(mla, "v_head_dim", 128);
  }
  const std::string family = lower(n.name);
  if (has(family, "deepseek-v3") || has(family, "deepseek-r1")) n.groups = 8, n.groups_per_token = 4;
  if (has(family, "deepseek-v2") && !has(family, "lite")) n.groups = 8, n.groups_per_token = 3;
  if (given(m, "n_group"))
    n.groups = whole(m, "n_group", 1), n.groups_per_token = whole(m, "topk_group", n.groups);
  if (has(attention, "window")) {
    std::smatch size;
    n.window =
        std::regex_search(attention, size, std::regex("window (\\d{1,7})")) ? std::stoll(size[1]) : 1024;
    n.window_every = has(attention, "alternate") ? 2 : 1;
  }
  if (has(lower(text(m, "note")), "parallel transformer block") ||
      has(lower(text(m, "note")), "parallel block"))
    n.parallel_block = true;
  n.experts = whole(m, "experts");
  if (n.experts > 1) {
    n.top_k = std::max<std::int64_t>(1, whole(m, "top_k", 2));
    n.expert_ffn = whole(m, "expert_ffn", n.ffn);
    n.shared_ffn = whole(m, "shared_ffn");
    const std::int64_t shared = whole(m, "shared_experts");
    if (n.shared_ffn <= 0) n.shared_ffn = shared * n.expert_ffn;
    n.moe_every = std::max<std::int64_t>(1, whole(m, "moe_every", 1));
    n.dense_first = n.moe_every > 1 ? 0 : whole(m, "dense_layers");
    n.mtp_layers = whole(m, "mtp_layers");
  } else {
    n.experts = 0;
  }
  return n;
}

Accelerator parse_chip(const json& y, const std::string& everything) {
  Accelerator chip;
  const std::string name = text(y, "accelerator");
  if (const Accelerator* known = accelerator_named(name)) {
    chip = *known;
  } else {
    chip.name = name;
    const std::string low = lower(name);
    chip.family = has(low, "a100") || has(low, "a800")                       ? "ampere"
                  : has(low, "h100") || has(low, "h200") || has(low, "h800") ? "hopper"
                  : has(low, "b200") || has(low, "b300")                     ? "blackwell"
                  : has(low, "tpu")                                          ? "tpu"
                                                                             : "other";
  }
  const auto set = [&](double& field, const char* key, double scale) {
    if (const double v = number(y, key); v > 0) field = v * scale;
  };
  // A catalogue entry keeps its measured product rates unless the row's peak says it is another bin.
  const double peak = number(y, "peak_bf16_tflops") * 1e12;
  if (peak > 0 && chip.bf16 > 0 && std::abs(peak / chip.bf16 - 1) > 0.05) {
    chip.bf16_achievable *= peak / chip.bf16;
    chip.fp8_achievable *= peak / chip.bf16;
  }
  set(chip.bf16, "peak_bf16_tflops", 1e12);
  set(chip.fp8, "peak_fp8_tflops", 1e12);
  set(chip.fp4, "peak_fp4_tflops", 1e12);
  set(chip.int8, "peak_int8_tops", 1e12);
  set(chip.memory_bytes, "hbm_gb", 1e9);
  set(chip.memory_bandwidth, "hbm_tbps", 1e12);
  set(chip.scaleup, "scaleup_gbps_uni", 1e9);
  set(chip.network, "nic_gbps_per_accel", 1e9 / 8);
  if (const auto v = whole(y, "per_node"); v > 0)
    chip.per_node = static_cast<int>(std::min<std::int64_t>(v, 1 << 20));
  if (const auto v = whole(y, "scaleup_domain"); v > 0)
    chip.scaleup_domain = static_cast<int>(std::min<std::int64_t>(v, 1 << 20));
  if (const double limit = number(y, "power_limit_w"); limit > 0 && chip.power_watts > 0)
    chip.power_limit = std::clamp(limit / chip.power_watts, 0.1, 1.0);
  if (chip.bf16 <= 0) chip.bf16 = 300e12;
  if (chip.memory_bandwidth <= 0) chip.memory_bandwidth = chip.bf16 / 250;
  if (chip.memory_bytes <= 0) chip.memory_bytes = 80e9;
  if (chip.scaleup <= 0) chip.scaleup = 200e9;
  if (chip.network <= 0) chip.network = chip.family == "tpu" ? 6.25e9 : 25e9;
  // A card bound to the wrong socket reaches its accelerator at half speed.
  if (has(everything, "before the pcie/numa fix")) chip.network *= 0.5;
  return chip;
}

Precision parse_row_precision(const std::string& name, const Accelerator& chip) {
  if (has(name, "fp4")) return chip.fp4 > 0 ? Precision::fp4 : Precision::fp8;
  if (has(name, "int8")) return chip.int8 > 0 ? Precision::int8 : Precision::bf16;
  const bool eight = has(name, "fp8") || has(name, "float8");
  if (!eight || chip.fp8 <= 0)
    return has(name, "fp32") && !has(name, "accum") ? Precision::fp32 : Precision::bf16;
  return has(name, "mx") || has(name, "block") ? Precision::fp8_block : Precision::fp8;
}

// Seconds of a step from a quoted TFLOP/s or MFU, by the convention that the row names.
double seconds_by_convention(const PublishedRun& run, const json& measured, double quoted) {
  const Setup& s = run.setup;
  const Network& n = s.network;
  const std::string convention = lower(text(measured, "flop_convention"));
  const double tokens = static_cast<double>(s.job.global_batch * s.job.sequence);
  const double h = static_cast<double>(n.hidden), L = static_cast<double>(n.layers),
               q = static_cast<double>(s.job.sequence);
  double flops;
  if (has(convention, "96")) {
    flops = 96 * tokens * L * h * h * (1 + q / (6 * h) + static_cast<double>(n.vocab) / (16 * L * h));
  } else {
    Network full = n;
    full.window = 0;
    const double causal = model_flops_per_token(full, s.job.sequence);
    const double square = 3 * L * q * static_cast<double>(n.heads * (n.head_dim + n.value_dim));
    const double whole_square = causal + square;  // causal already holds half
    flops = tokens * (has(convention, "halved") ? causal : whole_square);
    if (has(convention, "recompute") && !has(convention, "no recompute")) flops *= 4.0 / 3;
  }
  return flops / (quoted * 1e12 * s.count);
}

void read_measurement(PublishedRun& run, const json& measured) {
  Setup& s = run.setup;
  const double tokens = static_cast<double>(s.job.global_batch * s.job.sequence);
  if (truth(measured, "oom") || text(measured, "primary_metric") == "oom") {
    run.measured = Measured::out_of_memory;
  } else if (const double step = number(measured, "step_time_s"); step > 0) {
    run.measured = Measured::step_time;
    run.measured_seconds = step;
  } else if (const double each = number(measured, "tokens_per_s_per_accel"); each > 0) {
    run.measured = Measured::tokens_per_second;
    run.measured_seconds = tokens / (each * s.count);
  } else if (const double all = number(measured, "tokens_per_s"); all > 0) {
    run.measured = Measured::tokens_per_second;
    run.measured_seconds = tokens / all;
  } else if (const double hours = number(measured, "accel_hours_per_T_tokens"); hours > 0) {
    run.measured = Measured::tokens_per_second;
    run.measured_seconds = tokens / (1e12 / (hours * 3600) * s.count);
  } else if (const double quoted = number(measured, "tflops_per_accel"); quoted > 0) {
    run.measured = Measured::tflops;
    run.measured_seconds = seconds_by_convention(run, measured, quoted);
  } else if (const double mfu = number(measured, "mfu_reported"); mfu > 0 && s.chip.bf16 > 0) {
    run.measured = Measured::tflops;
    run.measured_seconds = seconds_by_convention(run, measured, mfu * s.chip.bf16 / 1e12);
  }
}

int positive(const json& o, const char* key, int absent) {
  const std::int64_t v = whole(o, key, absent);
  return v >= 1 && v <= 1 << 24 ? static_cast<int>(v) : absent;
}

// Sweeps of layouts: the same project's rows that differ in layout only by design.
std::string sweep_of(const std::string& source, const std::string& name) {
  const std::string all = lower(source + " " + name);
  if (has(all, "bloom-sweep")) return "BigScience";
  if (has(all, "dgx cloud")) return "DGX Cloud";
  if (has(all, "sc21 table 1")) return "Megatron 2021 table 1";
  if (has(all, "megatron2021")) return "Megatron 2021";
  if (has(all, "megatron-bridge")) return "Megatron-Bridge";
  if (has(all, "llm-foundry")) return "MosaicML";
  if (has(all, "mlperf")) return "MLPerf";
  return "";
}

PublishedRun parse_row(const json& row, std::size_t index) {
  PublishedRun run;
  run.name = text(row, "name");
  if (run.name.empty()) run.name = fmt::format("row {}", index);
  run.source = text(row, "source");
  run.sweep = sweep_of(run.source, run.name);
  const json &m = part(row, "model"), &y = part(row, "system"), &o = part(row, "layout"),
             &measured = part(row, "measured");
  Setup& s = run.setup;
  s.network = parse_network(m, run.name);
  if (has(lower(text(o, "notes")), "parallel attention/mlp block")) s.network.parallel_block = true;
  s.chip = parse_chip(y, lower(text(o, "precision") + " | " + text(y, "note")));
  s.job.sequence = std::max<std::int64_t>(1, whole(m, "seq_len", 2048));
  s.job.global_batch = std::max<std::int64_t>(1, whole(o, "global_batch", 1024));
  s.job.precision = parse_row_precision(lower(text(o, "precision")), s.chip);
  s.software = parse_software(row, o, s.chip);
  Layout& l = s.layout;
  run.layout_known = given(o, "tp") && given(o, "pp") && given(y, "count");
  l.tensor = positive(o, "tp", 1);
  l.pipeline = positive(o, "pp", 1);
  l.context = positive(o, "cp", 1);
  l.expert = s.network.experts > 0 ? positive(o, "ep", 1) : 1;
  s.count = positive(y, "count", l.tensor * l.pipeline * l.context * positive(o, "dp", 1));
  if (!given(y, "count")) s.count = s.network.experts > 0 || count(s.network).total > 3e10 ? 2048 : 1024;
  const int model_ranks = l.tensor * l.pipeline * l.context;
  l.data = positive(o, "dp", std::max(1, s.count / std::max(1, model_ranks)));
  if (static_cast<std::int64_t>(l.data) * model_ranks != s.count && s.count >= model_ranks &&
      s.count % model_ranks == 0)
    l.data = s.count / model_ranks;
  l.chunks = l.pipeline > 1 ? positive(o, "vpp", 1) : 1;
  const std::string schedule = lower(text(o, "schedule"));
  l.schedule = has(schedule, "zero")   ? ScheduleKind::zero_bubble
               : has(schedule, "dual") ? ScheduleKind::dualpipe_v
               : l.chunks > 1          ? ScheduleKind::interleaved
                                       : ScheduleKind::one_f_one_b;
  if (static_cast<std::int64_t>(l.pipeline) * l.chunks > s.network.layers + 2)
    l.chunks = std::max<int>(1, static_cast<int>(s.network.layers / l.pipeline));
  l.expert_tensor = positive(
      o, "etp",
      l.tensor > 1 && s.network.experts > 0 && s.network.experts <= 16 && l.tensor <= 8 ? l.tensor : 1);
  l.sequence_parallel = truth(o, "sequence_parallel") ||
                        (s.software.kind == Software::Kind::torch && s.software.date > 2023) ||
                        (s.network.experts > 0 && l.tensor > 1);
  l.zero = static_cast<int>(std::clamp<std::int64_t>(whole(o, "zero_stage", truth(o, "fsdp") ? 3 : 1), 0, 3));
  l.micro_batch = positive(o, "micro_batch", 1);
  if (!given(o, "micro_batch") && given(o, "grad_accum"))
    l.micro_batch = std::max<int>(
        1,
        static_cast<int>(s.job.global_batch / std::max<std::int64_t>(1, l.data * whole(o, "grad_accum", 1))));
  else if (!given(o, "micro_batch") && l.zero >= 3 && l.pipeline == 1)
    l.micro_batch = static_cast<int>(std::clamp<std::int64_t>(s.job.global_batch / l.data, 1, 8));
  else if (!given(o, "micro_batch") && s.job.global_batch < 4L * l.data)
    l.micro_batch = std::max<int>(1, static_cast<int>(s.job.global_batch / l.data));
  if (!given(o, "global_batch"))
    s.job.global_batch = std::max<std::int64_t>(1024, 4L * l.pipeline * l.data * l.micro_batch);
  l.recompute = parse_recompute(lower(text(o, "recompute")));
  // PyTorch's selective checkpointing keeps the products' outputs and makes the rest again.
  if (s.software.kind == Software::Kind::torch && lower(text(o, "recompute")) == "selective")
    l.recompute.norm = l.recompute.activation = true;
  std::smatch found;
  const std::string notes = lower(text(o, "notes"));
  if (std::regex_search(notes, found, std::regex("fsdp (?:group )?(\\d{1,7})")))
    l.shard_group = std::stoi(found[1]);
  if (std::regex_search(notes, found, std::regex("(\\d{1,6}) slice\\(s\\) of (\\d{1,6}) chips"))) {
    s.pod = std::stoi(found[2]);
    l.shard_group = std::max(1, s.pod / l.tensor);
  }
  if (s.chip.family == "tpu") s.pod_bandwidth = s.chip.data_centre > 0 ? s.chip.data_centre : 6.25e9;
  const std::string routing = lower(text(o, "routing"));
  if (std::regex_search(routing, found, std::regex("at most (\\d{1,3}) of")))
    l.node_limit = std::stoi(found[1]);
  s.software.imbalance =
      has(routing, "dropless") && !has(routing, "forced") && !has(routing, "balanced") ? 0 : 1;  // 0: fitted
  // Vendor recipes for models with shared experts hide the all-to-all behind other micro-batches.
  if (s.software.date >= 2025.65 && l.schedule == ScheduleKind::interleaved && s.network.shared_ffn > 0 &&
      l.expert > s.chip.scaleup_domain && s.software.kind == Software::Kind::megatron)
    s.software.overlap_experts = true;
  read_measurement(run, measured);
  return run;
}

}  // namespace

std::vector<PublishedRun> parse_runs(const std::string& source, const std::string& origin) {
  json document;
  try {
    document = json::parse(source);
  } catch (const json::exception& error) {
    fail("{}: {}", origin, error.what());
  }
  const json* rows = &document;
  if (document.is_object())
    for (const char* key : {"runs", "rows"})
      if (document.contains(key)) rows = &document[key];
  require(rows->is_array(), "{}: a list of runs is wanted", origin);
  std::vector<PublishedRun> runs;
  for (std::size_t i = 0; i < rows->size(); ++i) {
    require((*rows)[i].is_object(), "{}: row {} is not an object", origin, i);
    runs.push_back(parse_row((*rows)[i], i));
  }
  return runs;
}

std::vector<PublishedRun> read_runs(const std::filesystem::path& path) {
  return parse_runs(read_file(path, 1 << 28), path.string());
}

StepPrediction predict_run(const PublishedRun& run, const Constants& constants) {
  if (run.setup.software.imbalance > 0) return predict_step(run.setup, constants);
  Setup s = run.setup;
  s.software.imbalance = constants[Constant::imbalance];
  return predict_step(s, constants);
}

void assume_layout(PublishedRun& run, const Constants& constants) {
  if (run.layout_known) return;
  Setup best = run.setup;
  double least = 1e300;
  for (const int tensor : {1, 2, 4, 8})
    for (const int pipeline : {1, 2, 4, 8, 16})
      for (const int micro_batch : {1, 2, 4})
        for (const int zero : {1, 3}) {
          Setup s = run.setup;
          Layout& l = s.layout;
          if (zero == 3 && (pipeline > 1 || tensor > 2)) continue;
          l.tensor = tensor;
          l.pipeline = pipeline;
          l.sequence_parallel = tensor > 1 && s.software.date > 2022.4;
          l.zero = zero;
          l.context = 1;
          l.micro_batch = micro_batch;
          if (s.count % (tensor * pipeline) != 0) continue;
          l.data = s.count / (tensor * pipeline);
          l.schedule = ScheduleKind::one_f_one_b;
          if (s.network.layers % (pipeline * 2) == 0 && pipeline > 1)
            l.chunks = 2, l.schedule = ScheduleKind::interleaved;
          else
            l.chunks = 1;
          if (s.network.experts > 0) l.expert = std::min<int>(8, static_cast<int>(s.network.experts));
          if (!layout_problem(s).empty()) continue;
          const StepPrediction p = predict_step(s, constants);
          const double penalty = predict_memory(s, constants).total() > s.chip.memory_bytes ? 10 : 1;
          if (p.seconds * penalty < least) least = p.seconds * penalty, best = s;
        }
  run.setup = best;
  run.note = "layout not published; the fastest common one that fits is assumed";
}

}  // namespace sinew::plan
