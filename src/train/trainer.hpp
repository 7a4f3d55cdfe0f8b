// The training loop.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "train/evaluate.hpp"
#include "train/run_directory.hpp"
#include "train/setup.hpp"

namespace sinew {

struct TrainingResult {
  std::int64_t step = 0;
  int signal = 0;                        // that stopped the run, its checkpoint saved; 0: the run is complete
  std::filesystem::path checkpoint;      // the last one
  std::filesystem::path model;           // of a complete run: a Hugging Face directory
  std::optional<Evaluation> evaluation;  // of a complete run
  std::string sample;
  double step_seconds = 0;  // the mean, but for the first step
};

// Trains to setup.config.train.steps, or goes on from the newest sound checkpoint with `resume`. Throws
// UserError when a resumed run does not fit its checkpoint, IoError when a save fails (earlier checkpoints
// stay), Error when skipped steps do not end.
TrainingResult train(TrainingSetup& setup, const RunDirectory& directory, bool resume);

}  // namespace sinew
