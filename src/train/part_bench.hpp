// The operations of a training step, each measured alone at the shapes of a run: what `sinew plan --here`
// predicts from. And the steps of such a run themselves, to hold the prediction against.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "comm/mesh.hpp"
#include "config/model_config.hpp"
#include "config/run_config.hpp"
#include "model/language_model.hpp"
#include "schedule/step_parts.hpp"

namespace sinew {

struct PartShape {
  std::int64_t rows = 1, tokens = 256;  // of a micro-batch on one replica; tokens of whole rows
  at::ScalarType type = at::kFloat;
};

// Every operation of `config` at this shape, forward and backward, on random values and on the threads that
// training uses. An operation runs on several inputs before any of them goes backward, so that what it
// keeps has left the nearest caches, as between the layers of a network. With `mesh` it measures this
// process's share of each operation, and what it says to others meanwhile: all processes make one and call
// its functions together.
class PartBench {
 public:
  PartBench(const ModelConfig& config, const PartShape& shape, const RunConfig::Optimizer& optimizer,
            const std::shared_ptr<Mesh>& mesh = nullptr);
  ~PartBench();
  // Each operation once; the first round warms up and does not count.
  void round();
  // Means of the rounds (and processes): what interrupts an operation now and then interrupts steps as often.
  StepParts mean() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Rounds for about so many seconds, at least two.
StepParts bench_parts(const ModelConfig& config, const PartShape& shape,
                      const RunConfig::Optimizer& optimizer, double seconds = 1,
                      const std::shared_ptr<Mesh>& mesh = nullptr);

// How fast the groups of `mesh` carry what a run's state and activations send, each operation of each group
// at two sizes. All processes make one and call its functions together.
class LinkBench {
 public:
  LinkBench(const ModelConfig& config, const PartShape& shape, const std::shared_ptr<Mesh>& mesh);
  ~LinkBench();
  void round();  // the first warms up and does not count
  StepLinks mean() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
StepLinks bench_links(const ModelConfig& config, const PartShape& shape, const std::shared_ptr<Mesh>& mesh);

struct RunShape {
  PartShape micro;
  std::int64_t micro_batches = 1;
  Recompute recompute = Recompute::none;
};

// A run whose steps are the trainer's, on random tokens. With `mesh` all processes make one and step
// together.
class RunBench {
 public:
  RunBench(const ModelConfig& config, const RunShape& shape, const RunConfig::Optimizer& optimizer,
           std::shared_ptr<Mesh> mesh = nullptr);
  ~RunBench();
  double step();  // one more, in seconds

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sinew
