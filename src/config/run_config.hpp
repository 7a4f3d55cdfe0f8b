// RunConfig: the settings of one training run, in TOML. One table (run_settings.cpp) lists every setting
// with its type, unit, range and help; parsing, --set, --print-config, --help-config, errors and the saved
// file all follow from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/layout.hpp"

namespace sinew {

struct RunConfig {
  struct Model {
    std::string config;  // preset, config.json or model directory
    std::string init;    // model directory to start from; empty: random weights
  } model;

  struct Data {
    std::vector<std::string> path;  // data sets made by `sinew data`
    std::vector<double> weights;    // one each, or none
    std::int64_t sequence = 1024;
    bool mask_documents = false;
    std::int64_t prefetch = 2;
  } data;

  struct Train {
    std::int64_t steps = 1000;
    std::int64_t batch = 8, micro_batch = 0;
    std::int64_t batch_start = 0, batch_ramp = 0;
    std::string dtype = "fp32", recompute = "none", device = "auto";
    bool deterministic = false;
    std::int64_t seed = 0;
    double spike_factor = 3;
    std::int64_t max_skips = 3, max_rollbacks = 3;
  } train;

  struct Optimizer {
    std::string kind = "adamw";
    double lr = 3e-4, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, clip = 1;
    double momentum = 0.95;
    bool nesterov = true;
    std::int64_t newton_schulz = 5;
    double muon_scale = 0.2;
  } optimizer;

  struct Schedule {
    std::string kind = "cosine";
    std::int64_t warmup = 0;
    double final_ratio = 0.1, decay_fraction = 0.2;
    std::vector<double> step_fractions{0.6, 0.9};
    double step_factor = 0.316;
  } schedule;

  struct Balance {
    double expert_alpha = -1;     // -1: what the model's config.json says
    std::string scope = "model";  // model, sequence or batch
    double device_alpha = 0, communication_alpha = 0;
    std::int64_t device_groups = 1, device_limit = 1;
    double z_alpha = 0, capacity_factor = 0, bias_speed = 0.001, bias_until = 1, mtp_weight = 0.3;
  } balance;

  struct Eval {
    std::int64_t every = 0, batches = 16;
    std::int64_t sample_every = 0;
    std::string sample_prompt;
    std::int64_t sample_tokens = 64;
    double sample_temperature = 0.8;
  } eval;

  struct Checkpoint {
    std::int64_t every = 0, keep_last = 2, keep_every = 0;
  } checkpoint;

  struct Log {
    std::int64_t every = 10;
    bool tensorboard = true;
    std::int64_t trace_steps = 8;
  } log;

  Layout layout;

  // Where each setting that is not a default came from: "lr.toml:4:1" or "--set". Keyed "section.key".
  std::map<std::string, std::string> origins;
};

// `text` laid over `config`. Throws UserError "file:line:column: ..." on bad TOML, unknown keys (with the
// nearest known name) and values of a wrong type or out of range. Input over 256 KiB or nested deeply is
// refused. Does not look for contradictions: check_run_config() does, once everything is in place.
void apply_toml(RunConfig& config, std::string_view text, const std::string& origin);
void apply_toml_file(RunConfig& config, const std::filesystem::path& path);

// One `section.key=value`. Text values need no quotes; lists may be written a,b or [a, b].
void apply_set(RunConfig& config, std::string_view assignment);

// Settings that contradict each other, in one line that names both and where they came from.
void check_run_config(const RunConfig& config);

// Files in order (later ones win), then the --set values, then check_run_config().
RunConfig load_run_config(std::span<const std::string> files, std::span<const std::string> sets);

std::string to_toml(const RunConfig& config);       // every setting; apply_toml(to_toml(c)) gives c
std::string print_config(const RunConfig& config);  // every setting, its value and where it came from
std::string help_config();                          // every setting, its type, range, default and meaning

// Settings in which two configs differ: "optimizer.lr: 0.001 -> 0.0003". For resumed runs.
std::vector<std::string> config_differences(const RunConfig& before, const RunConfig& after);

}  // namespace sinew
