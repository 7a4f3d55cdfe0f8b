// What a calibration learned about a model, kept in a file so that the next size costs no second calibration.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "config/model_config.hpp"

namespace sinew::compress {

// How often calibration came by the experts of one layer.
struct ExpertVisits {
  std::int64_t layer = 0;
  std::vector<double> tokens;  // of each expert
};

struct Statistics {
  std::string model;        // hex64 of the config's JSON: statistics of another model are refused
  std::int64_t tokens = 0;  // of the text
  std::map<std::string, std::vector<float>>
      moments;  // E[x^2] by column, by the name of the unit that reads x
  std::vector<ExpertVisits> visits;
  // Mean KL divergence in nats a token when one tensor (or expert) alone is rounded to a format of ggml's
  // name.
  std::map<std::string, std::map<std::string, double>> sensitivities;
};

std::string model_fingerprint(const ModelConfig& config);

// "SINEWCAL", the length of a JSON header (u64), the header, the moments as floats, XXH3 of all before (u64).
void save_statistics(const std::filesystem::path& path, const Statistics& statistics);
// Throws UserError naming the file when it is damaged or not of this kind.
Statistics load_statistics(const std::filesystem::path& path);

}  // namespace sinew::compress
