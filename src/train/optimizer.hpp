// AdamW and Muon over the parameters of a model. Weights in bf16 have an fp32 master copy; moments and
// momentum are fp32. Nothing depends on the number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "model/language_model.hpp"
#include "parallel/sharding.hpp"
#include "storage/boxes.hpp"

namespace sinew {

class GradientBuffers;

// One trained tensor, or the piece of one that this process keeps, and what the optimizer keeps of it. Pieces
// are flat, but where they are all of a matrix have its shape.
struct TrainedTensor {
  std::string name;
  at::Tensor leaf;    // the model's, whose grad() backward() fills
  at::Tensor weight;  // the same memory outside autograd, fp32 or bf16
  at::Tensor master;  // fp32; the weight itself where that is fp32
  at::Tensor
      gradient;  // fp32 sum over the micro-batches of a step; undefined: zero. On CPU it is the leaf's grad()
  bool fresh = true;   // on CPU: nothing of this step is in `gradient` yet, and what it holds does not count
  at::Tensor first;    // fp32: AdamW's mean of gradients, Muon's momentum
  at::Tensor second;   // fp32: AdamW's mean of squares; undefined under Muon
  bool decay = false;  // 2-D weights; not norms and biases
  bool muon = false;
  bool counts = true;      // for sums over processes: no other process's copy of it does
  PartSpec part;           // the box of the tensor, of which elements
  std::int64_t begin = 0;  // from `begin` on are here
};

// What a checkpoint holds: "weight/NAME", "first/NAME", "second/NAME", all fp32.
struct StateTensor {
  std::string name;
  at::Tensor tensor;                // of `boxes`, one after another
  std::vector<std::int64_t> shape;  // of the whole
  std::vector<Box> boxes;
  bool written = true;  // by this process: others that hold the same leave it to it
};

class Optimizer {
 public:
  // Buffers among `parameters` are not trained but are part of the state.
  Optimizer(std::span<const Parameter> parameters, const RunConfig::Optimizer& options);
  // Over the pieces that `sharding` gives this process. Everything that sums over parameters then sums over
  // processes: all must call it.
  Optimizer(std::span<const Parameter> parameters, std::shared_ptr<Sharding> sharding,
            const RunConfig::Optimizer& options);

  // After each backward(): sees to it that all gradients are in the fp32 sums. Call it before the functions
  // below.
  void accumulate();
  // After the last backward() of a step: gradients become the sums over all processes.
  void finish_gradients();
  // L2 norm of the whole gradient; infinite or NaN where an element is.
  double gradient_norm() const;
  // One update with the gradients times `gradient_scale` (of clipping); weights follow their masters.
  void step(double lr, double gradient_scale);
  void zero_gradients();

  std::int64_t updates() const { return updates_; }  // for the bias correction
  void set_updates(std::int64_t updates) { updates_ = updates; }
  // Views of the live state; after writing into them call weights_from_masters().
  std::vector<StateTensor> state() const;
  void weights_from_masters();

  std::span<const TrainedTensor> tensors() const { return tensors_; }

 private:
  void muon_of_pieces(double lr, double gradient_scale);
  void add_buffers(std::span<const Parameter> parameters, bool written);

  std::shared_ptr<Sharding> sharding_;  // null: all is here
  RunConfig::Optimizer options_;
  std::vector<TrainedTensor> tensors_;
  std::vector<StateTensor> buffers_;
  std::int64_t updates_ = 0;
  std::shared_ptr<GradientBuffers> buffers_of_gradients_;
};

// True for tensors that Muon leaves to AdamW: all but 2-D weights, the embedding, the head and the gates.
bool left_to_adamw(const std::string& name, std::size_t dimensions);

}  // namespace sinew
