#include "config/run_settings.hpp"

#include <fmt/format.h>

namespace sinew {
namespace {

constexpr double kMany = 1e15;

#define AT(section, key) [](RunConfig& c) -> Slot { return &c.section.key; }

std::vector<Setting> make_settings() {
  return {
      {"model", "config", AT(model, config), "preset of configs/models, config.json or model directory"},
      {"model", "init", AT(model, init),
       "model directory whose weights to start from; empty: random weights"},

      {"data", "path", AT(data, path), "data set made by `sinew data`, or a list of them"},
      {"data", "weights", AT(data, weights), "share of each data set; empty: equal", 0, kMany},
      {"data", "sequence", AT(data, sequence), "tokens a sequence", 2, 1 << 24},
      {"data", "mask_documents", AT(data, mask_documents), "no attention and no loss across documents"},
      {"data", "prefetch", AT(data, prefetch), "batches read ahead by a thread of their own", 0, 64},

      {"train", "steps", AT(train, steps), "optimizer steps of the whole run", 1, kMany},
      {"train", "batch", AT(train, batch), "sequences a step", 1, 1 << 24},
      {"train", "micro_batch", AT(train, micro_batch),
       "sequences a forward pass, gradients being accumulated over the batch; 0: the whole batch", 0,
       1 << 24},
      {"train", "batch_start", AT(train, batch_start), "sequences of the first step; 0: train.batch", 0,
       1 << 24},
      {"train", "batch_ramp", AT(train, batch_ramp), "steps from batch_start to batch, in a straight line", 0,
       kMany},
      {"train",
       "dtype",
       AT(train, dtype),
       "fp32, or bf16 weights and activations with fp32 master weights and moments, or fp8: bf16 with the "
       "products "
       "of DeepSeek-V3's FP8 recipe (emulated: shows what it does to the loss, slower)",
       0,
       0,
       {"fp32", "bf16", "fp8"}},
      {"train",
       "recompute",
       AT(train, recompute),
       "activations computed again in the backward pass to save memory",
       0,
       0,
       {"none", "selective", "full"}},
      {"train", "device", AT(train, device),
       "auto, cpu, cuda or cuda:N; auto: a GPU where libtorch sees one"},
      {"train", "deterministic", AT(train, deterministic),
       "the same losses, bit for bit, from run to run of one layout, on a GPU too; a CPU's always are"},
      {"train", "seed", AT(train, seed), "of initial weights, data order and samples", 0, kMany},
      {"train", "spike_factor", AT(train, spike_factor),
       "a step is skipped when its loss is over this times the recent median; 0: never", 0, 1e6},
      {"train", "max_skips", AT(train, max_skips),
       "steps skipped in a row before going back to the last good checkpoint", 1, 1000},
      {"train", "max_rollbacks", AT(train, max_rollbacks), "times to go back before giving up", 0, 1000},

      {"optimizer",
       "kind",
       AT(optimizer, kind),
       "adamw, or muon for 2-D weights with adamw for embedding, head, gates and norms",
       0,
       0,
       {"adamw", "muon"}},
      {"optimizer", "lr", AT(optimizer, lr), "peak learning rate", 0, 100},
      {"optimizer", "beta1", AT(optimizer, beta1), "decay of the mean of gradients", 0, 0.999999},
      {"optimizer", "beta2", AT(optimizer, beta2), "decay of the mean of squared gradients", 0, 0.9999999},
      {"optimizer", "eps", AT(optimizer, eps), "added to the root of the second moment", 0, 1},
      {"optimizer", "weight_decay", AT(optimizer, weight_decay),
       "decoupled, times the learning rate; not on norms and biases", 0, 100},
      {"optimizer", "clip", AT(optimizer, clip), "largest norm of the whole gradient; 0: no clipping", 0,
       1e9},
      {"optimizer", "momentum", AT(optimizer, momentum), "of muon", 0, 0.9999},
      {"optimizer", "nesterov", AT(optimizer, nesterov), "of muon"},
      {"optimizer", "newton_schulz", AT(optimizer, newton_schulz), "iterations of muon", 1, 20},
      {"optimizer", "muon_scale", AT(optimizer, muon_scale),
       "RMS of a muon update over the learning rate; 0.2 is that of adamw", 1e-6, 100},

      {"schedule",
       "kind",
       AT(schedule, kind),
       "of the learning rate",
       0,
       0,
       {"cosine", "wsd", "step", "constant"}},
      {"schedule", "warmup", AT(schedule, warmup), "steps of linear warmup", 0, kMany},
      {"schedule", "final_ratio", AT(schedule, final_ratio), "last over peak rate, for cosine and wsd", 0, 1},
      {"schedule", "decay_fraction", AT(schedule, decay_fraction), "share of the steps that wsd decays over",
       0, 1},
      {"schedule", "step_fractions", AT(schedule, step_fractions),
       "shares of the run after which `step` multiplies the rate", 0, 1},
      {"schedule", "step_factor", AT(schedule, step_factor), "by this", 0, 1},

      {"balance", "expert_alpha", AT(balance, expert_alpha),
       "expert-level balance loss; -1: aux_loss_alpha of config.json", -1, 100},
      {"balance",
       "scope",
       AT(balance, scope),
       "of the expert-level loss; model: seq_aux of config.json",
       0,
       0,
       {"model", "sequence", "batch"}},
      {"balance", "device_alpha", AT(balance, device_alpha), "device-level balance loss (DeepSeek-V2 eq 26)",
       0, 100},
      {"balance", "communication_alpha", AT(balance, communication_alpha),
       "communication balance loss (DeepSeek-V2 eq 29)", 0, 100},
      {"balance", "device_groups", AT(balance, device_groups), "groups of experts, D of DeepSeek-V2", 1,
       1 << 20},
      {"balance", "device_limit", AT(balance, device_limit), "groups a token goes to, M of DeepSeek-V2", 1,
       1 << 20},
      {"balance", "z_alpha", AT(balance, z_alpha), "router z-loss (ST-MoE eq 5)", 0, 100},
      {"balance", "capacity_factor", AT(balance, capacity_factor),
       "an expert takes at most this times the mean load, the rest is dropped; 0: nothing is dropped", 0,
       1e6},
      {"balance", "bias_speed", AT(balance, bias_speed),
       "gamma of the loss-free bias (DeepSeek-V3 2.1.2), for topk_method noaux_tc", 0, 1},
      {"balance", "bias_until", AT(balance, bias_until), "share of the run after which the bias stays", 0, 1},
      {"balance", "mtp_weight", AT(balance, mtp_weight),
       "of the multi-token-prediction loss (DeepSeek-V3 eq 24)", 0, 100},

      {"eval", "every", AT(eval, every), "steps between evaluations; 0: at the end only", 0, kMany},
      {"eval", "batches", AT(eval, batches), "batches of held-out text; 0: all of it", 0, kMany},
      {"eval", "sample_every", AT(eval, sample_every), "steps between samples of text; 0: at the end only", 0,
       kMany},
      {"eval", "sample_prompt", AT(eval, sample_prompt), "text that samples go on from"},
      {"eval", "sample_tokens", AT(eval, sample_tokens), "tokens a sample", 1, 1 << 16},
      {"eval", "sample_temperature", AT(eval, sample_temperature), "0: the likeliest token", 0, 100},

      {"checkpoint", "every", AT(checkpoint, every), "steps between checkpoints; 0: at the end only", 0,
       kMany},
      {"checkpoint", "keep_last", AT(checkpoint, keep_last), "newest checkpoints to keep", 1, kMany},
      {"checkpoint", "keep_every", AT(checkpoint, keep_every),
       "steps; checkpoints at multiples are kept for ever; 0: none are", 0, kMany},

      {"log", "every", AT(log, every), "steps between lines of progress and metrics", 1, kMany},
      {"log", "tensorboard", AT(log, tensorboard), "write TensorBoard event files too"},
      {"log", "trace_steps", AT(log, trace_steps),
       "steps, from the start or resumption, of which RUN/trace keeps what each rank did (sinew trace)", 0,
       1e6},

      {"layout", "data", AT(layout, data),
       "replicas of everything, each with its own rows; 0: what is left of the processes", 0, 1 << 24},
      {"layout", "shard", AT(layout, shard), "processes that spread one replica's state (ZeRO)", 1, 1 << 24},
      {"layout", "zero", AT(layout, zero),
       "what they spread: 1 optimizer state, 2 gradients too, 3 weights too", 1, 3},
      {"layout", "tensor", AT(layout, tensor),
       "processes that share heads, feed-forward widths and vocabulary, with the sequence cut between them",
       1, 1 << 20},
      {"layout", "context", AT(layout, context), "processes that share a sequence (ring attention)", 1,
       1 << 20},
      {"layout", "pipeline", AT(layout, pipeline), "stages of layers", 1, 1 << 20},
      {"layout",
       "schedule",
       AT(layout, schedule),
       "of the pipeline",
       0,
       0,
       {"gpipe", "gpipe-flush", "1f1b", "interleaved", "zero-bubble", "dualpipe-v"}},
      {"layout", "chunks", AT(layout, chunks), "stages a process holds, of interleaved", 1, 1 << 20},
      {"layout", "micro_batches", AT(layout, micro_batches), "a step; 0: as train.micro_batch says", 0,
       1 << 20},
      {"layout", "expert", AT(layout, expert),
       "processes that share the experts, of all those of a pipeline stage", 1, 1 << 20},
      {"layout", "ranks_per_node", AT(layout, ranks_per_node), "processes a node; 0: as the launcher says", 0,
       1 << 20},
      {"layout", "node_limit", AT(layout, node_limit),
       "tokens go once to each of at most this many nodes and are forwarded inside; 0: to each expert's "
       "process",
       0, 1 << 20},
      {"layout",
       "dispatch",
       AT(layout, dispatch),
       "of tokens to experts: as they are, or in blocks of 128 8-bit numbers",
       0,
       0,
       {"exact", "fp8"}},
      {"layout", "timeout", AT(layout, timeout), "seconds that an operation waits for another process", 1,
       1 << 20},
  };
}

#undef AT

// The shortest text that reads back as the same number, with a point or exponent so that TOML sees a float.
std::string number(double value) {
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

struct Printer {
  std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
  std::string operator()(const std::int64_t* v) const { return std::to_string(*v); }
  std::string operator()(const double* v) const { return number(*v); }
  std::string operator()(const std::string* v) const { return quoted(*v); }
  template <class T>
  std::string operator()(const std::vector<T>* list) const {
    std::string out = "[";
    for (const auto& item : *list) out += (out.size() > 1 ? ", " : "") + (*this)(&item);
    return out + "]";
  }
};

}  // namespace

std::span<const Setting> run_settings() {
  static const std::vector<Setting> settings = make_settings();
  return settings;
}

std::string setting_value(const Setting& setting, const RunConfig& config) {
  return std::visit(Printer{}, setting.slot(const_cast<RunConfig&>(config)));
}

std::string setting_type(const Setting& setting) {
  RunConfig probe;
  constexpr const char* kNames[] = {"true or false", "integer",       "number",
                                    "text",          "list of texts", "list of numbers"};
  return kNames[setting.slot(probe).index()];
}

}  // namespace sinew
