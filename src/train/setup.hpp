// Everything a run needs, read and checked before the first file is written.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "comm/mesh.hpp"
#include "config/model_config.hpp"
#include "config/run_config.hpp"
#include "model/language_model.hpp"
#include "ops/fp8.hpp"
#include "text/loader.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

struct TrainingSetup {
  RunConfig config;
  ModelConfig model;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  std::unique_ptr<Fp8Products> fp8;  // with train.dtype = "fp8": for the life of the run
  BalanceOptions balance;
  std::shared_ptr<Mesh> mesh;                 // null: this process alone
  std::unique_ptr<Loader> train, validation;  // validation: null when no data set holds any text out
  std::unique_ptr<Tokenizer> tokenizer;
  std::map<std::string, std::string> tokenizer_files;  // name -> content, copied into checkpoints and models
  double planned_step_seconds = 0;  // printed beside what is measured; 0: nothing was planned
};

// Throws UserError: unknown model, data missing, damaged or too short, data sets of different tokenizers,
// vocabulary larger than the model's, sequence longer than the model allows, device absent, balancing that
// does not fit the model.
TrainingSetup prepare_training(const RunConfig& config, std::shared_ptr<Endpoint> endpoint = nullptr);

}  // namespace sinew
