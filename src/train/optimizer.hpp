// AdamW and Muon over the parameters of a model. Weights in bf16 have an fp32 master copy; moments and
// momentum are fp32. Nothing depends on the number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "model/language_model.hpp"

namespace sinew {

// One trained tensor and what the optimizer keeps of it.
struct TrainedTensor {
  std::string name;
  at::Tensor leaf;    // the model's, whose grad() backward() fills
  at::Tensor weight;  // the same memory outside autograd, fp32 or bf16
  at::Tensor master;  // fp32; the weight itself where that is fp32
  at::Tensor
      gradient;  // fp32 sum over the micro-batches of a step; undefined: zero. On CPU it is the leaf's grad()
  at::Tensor first;    // fp32: AdamW's mean of gradients, Muon's momentum
  at::Tensor second;   // fp32: AdamW's mean of squares; undefined under Muon
  bool decay = false;  // 2-D weights; not norms and biases
  bool muon = false;
};

// What a checkpoint holds: "weight/NAME", "first/NAME", "second/NAME", all fp32.
struct StateTensor {
  std::string name;
  at::Tensor tensor;
};

class Optimizer {
 public:
  // Buffers among `parameters` are not trained but are part of the state.
  Optimizer(std::span<const Parameter> parameters, const RunConfig::Optimizer& options);

  // After each backward(): moves the gradients of the weights into the fp32 sums.
  void accumulate();
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
  RunConfig::Optimizer options_;
  std::vector<TrainedTensor> tensors_;
  std::vector<StateTensor> buffers_;
  std::int64_t updates_ = 0;
  bool adamw_zeroed_ = false;  // since the last step the gradients of AdamW's tensors are zero
};

// True for tensors that Muon leaves to AdamW: all but 2-D weights, the embedding, the head and the gates.
bool left_to_adamw(const std::string& name, const at::Tensor& weight);

}  // namespace sinew
