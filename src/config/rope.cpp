#include "config/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "config/rope_json.hpp"

namespace sinew {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// The pair that turns `rotations` times over the original context (YaRN, find_correction_dim).
double correction_dim(const YarnScaling& yarn, double rotations, double dim, double theta) {
  const auto context = static_cast<double>(yarn.original_max_position_embeddings);
  return dim * std::log(context / (rotations * kTwoPi)) / (2 * std::log(theta));
}

void apply_yarn(const YarnScaling& yarn, double theta, std::vector<double>& frequencies) {
  const double dim = 2 * static_cast<double>(frequencies.size());
  const double low = std::max(std::floor(correction_dim(yarn, yarn.beta_fast, dim, theta)), 0.0);
  double high = std::min(std::ceil(correction_dim(yarn, yarn.beta_slow, dim, theta)), dim - 1);
  if (low == high) high += 0.001;
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    frequencies[j] *= ramp / yarn.factor + (1 - ramp);
  }
}

void apply_llama3(const Llama3Scaling& scaling, std::vector<double>& frequencies) {
  const auto context = static_cast<double>(scaling.original_max_position_embeddings);
  for (double& frequency : frequencies) {
    const double turns = context * frequency / kTwoPi;  // over the original context
    if (turns > scaling.high_freq_factor) continue;
    if (turns < scaling.low_freq_factor) {
      frequency /= scaling.factor;
    } else {
      const double keep =
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      frequency *= (1 - keep) / scaling.factor + keep;
    }
  }
}

std::string scaling_type(const ConfigReader& reader) {
  const bool v4 = reader.has("type"), v5 = reader.has("rope_type");
  if (!v4 && !v5) return "default";
  const auto type = reader.text(v5 ? "rope_type" : "type");
  if (v4 && v5) reader.check(reader.text("type") == type, "type", "and rope_type contradict each other");
  return type;
}

YarnScaling read_yarn(const ConfigReader& reader, std::int64_t max_positions) {
  YarnScaling yarn;
  yarn.factor = reader.number({"factor"}, 1, 1e6);
  yarn.beta_fast = reader.number_or({"beta_fast"}, 32, 1e-6, 1e6);
  yarn.beta_slow = reader.number_or({"beta_slow"}, 1, 1e-6, 1e6);
  reader.check(yarn.beta_fast >= yarn.beta_slow, "beta_fast", "is {}, under beta_slow ({})", yarn.beta_fast,
               yarn.beta_slow);
  yarn.mscale = reader.number_or({"mscale"}, 1, 0, 1e3);
  yarn.mscale_all_dim = reader.number_or({"mscale_all_dim"}, 0, 0, 1e3);
  yarn.original_max_position_embeddings =
      reader.integer_or({"original_max_position_embeddings"}, max_positions, 1, kMaxPositions);
  if (reader.has("attention_factor")) yarn.attention_factor = reader.number({"attention_factor"}, 1e-6, 1e6);
  reader.check(reader.boolean_or("truncate", true), "truncate", "is false, which Sinew does not build");
  return yarn;
}

Llama3Scaling read_llama3(const ConfigReader& reader) {
  Llama3Scaling scaling;
  scaling.factor = reader.number({"factor"}, 1, 1e6);
  scaling.low_freq_factor = reader.number({"low_freq_factor"}, 1e-6, 1e6);
  scaling.high_freq_factor = reader.number({"high_freq_factor"}, 1e-6, 1e6);
  reader.check(scaling.high_freq_factor > scaling.low_freq_factor, "high_freq_factor",
               "is {}, not above low_freq_factor ({})", scaling.high_freq_factor, scaling.low_freq_factor);
  scaling.original_max_position_embeddings =
      reader.integer({"original_max_position_embeddings"}, 1, kMaxPositions);
  return scaling;
}

void read_scaling(const ConfigReader& reader, ModelConfig& config) {
  const auto type = scaling_type(reader);
  if (type == "default") return;
  if (type == "yarn") {
    config.yarn = read_yarn(reader, config.max_position_embeddings);
  } else if (type == "llama3") {
    config.llama3 = read_llama3(reader);
  } else if (type == "linear") {
    config.rope_linear_factor = reader.number({"factor"}, 1, 1e6);
  } else {
    reader.bad(reader.has("rope_type") ? "rope_type" : "type",
               "is \"{}\"; Sinew has default, linear, llama3 and yarn", printable(type));
  }
}

Json scaling_json(const ModelConfig& config) {
  if (config.yarn) {
    const YarnScaling& yarn = *config.yarn;
    Json json{{"factor", yarn.factor},
              {"beta_fast", yarn.beta_fast},
              {"beta_slow", yarn.beta_slow},
              {"mscale", yarn.mscale},
              {"mscale_all_dim", yarn.mscale_all_dim},
              {"original_max_position_embeddings", yarn.original_max_position_embeddings}};
    if (yarn.attention_factor) json["attention_factor"] = *yarn.attention_factor;
    return json;
  }
  if (config.llama3)
    return {{"factor", config.llama3->factor},
            {"low_freq_factor", config.llama3->low_freq_factor},
            {"high_freq_factor", config.llama3->high_freq_factor},
            {"original_max_position_embeddings", config.llama3->original_max_position_embeddings}};
  return {{"factor", config.rope_linear_factor}};
}

std::string_view type_name(const ModelConfig& config) {
  if (config.yarn) return "yarn";
  if (config.llama3) return "llama3";
  return config.rope_linear_factor != 1 ? "linear" : "default";
}

}  // namespace

std::vector<double> rope_frequencies(const ModelConfig& config) {
  const auto dim = config.rope_dim();
  std::vector<double> frequencies(static_cast<std::size_t>(dim / 2));
  for (std::size_t j = 0; j < frequencies.size(); ++j)
    frequencies[j] = std::pow(config.rope_theta, -2 * static_cast<double>(j) / static_cast<double>(dim)) /
                     config.rope_linear_factor;
  if (config.yarn) apply_yarn(*config.yarn, config.rope_theta, frequencies);
  if (config.llama3) apply_llama3(*config.llama3, frequencies);
  return frequencies;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

double rope_attention_factor(const ModelConfig& config) {
  if (!config.yarn) return 1;
  const YarnScaling& yarn = *config.yarn;
  if (yarn.attention_factor) return *yarn.attention_factor;
  return yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(yarn.factor, yarn.mscale_all_dim);
}

void read_rope(const ConfigReader& reader, double default_theta, ModelConfig& config) {
  constexpr double kLowest = 1.0000001, kHighest = 1e15;
  config.rope_theta = reader.number_or({"rope_theta"}, default_theta, kLowest, kHighest);
  if (reader.has("rope_scaling")) read_scaling(reader.object("rope_scaling"), config);
  if (!reader.has("rope_parameters")) return;
  const ConfigReader v5 = reader.object("rope_parameters");
  v5.refuse_objects("which Sinew does not build: all its layers rotate alike");
  ModelConfig other = config;
  other.yarn.reset();
  other.llama3.reset();
  other.rope_linear_factor = 1;
  other.rope_theta = v5.number_or({"rope_theta"}, config.rope_theta, kLowest, kHighest);
  read_scaling(v5, other);
  reader.check(!reader.has("rope_theta") || other.rope_theta == config.rope_theta, "rope_theta",
               "is {}, but rope_parameters.rope_theta is {}", config.rope_theta, other.rope_theta);
  const bool same = other.yarn == config.yarn && other.llama3 == config.llama3 &&
                    other.rope_linear_factor == config.rope_linear_factor;
  reader.check(!reader.has("rope_scaling") || same, "rope_scaling",
               "and rope_parameters contradict each other");
  const double rotated = v5.number_or({"partial_rotary_factor"}, 1, 0, 1);
  v5.check(rotated == 1, "partial_rotary_factor", "is {}, but Sinew rotates whole heads only", rotated);
  config = std::move(other);
}

// Both spellings: transformers 4 and the released modeling files read rope_theta and rope_scaling,
// transformers 5 reads rope_parameters.
void write_rope(const ModelConfig& config, Json& json) {
  const auto type = type_name(config);
  json["rope_theta"] = config.rope_theta;
  Json v4 = nullptr, v5{{"rope_type", type}, {"rope_theta", config.rope_theta}};
  if (type != "default") {
    const Json scaling = scaling_json(config);
    v4 = Json{{"type", type}, {"rope_type", type}};
    v4.update(scaling);
    v5.update(scaling);
  }
  json["rope_scaling"] = std::move(v4);
  json["rope_parameters"] = std::move(v5);
}

}  // namespace sinew
