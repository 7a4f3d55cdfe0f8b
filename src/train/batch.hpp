// One batch: the loss and gradients of its micro-batches, summed as one big batch would give them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comm/mesh.hpp"
#include "model/language_model.hpp"
#include "text/loader.hpp"
#include "train/optimizer.hpp"

namespace sinew {

struct BatchTensors {
  at::Tensor tokens, targets;  // [rows, T] int64; targets -100 where the next token is of another document
  at::Tensor documents;        // [rows, T] int32, or undefined
  std::int64_t counted = 0;    // targets that are not -100
};
// Rows [first, first + rows) of `batch`. With `mask_documents`, attention and loss stay within a document.
BatchTensors batch_tensors(const TokenBatch& batch, std::int64_t first, std::int64_t rows,
                           bool mask_documents, at::Device device);

struct BatchLoss {
  double total = 0;          // the objective
  double cross_entropy = 0;  // nats a token
  double balance = 0, z = 0, mtp = 0;
  std::vector<RouterLoad> loads;  // of the whole batch
};
// Forward and backward over `batch` in micro-batches of `micro` rows; gradients are in the optimizer after.
// With a mesh every process is given its own rows of the batch (rows_of_replica()), `micro` still being that
// of all together, works on its own stages, and is told the loss and loads of all.
BatchLoss forward_backward(LanguageModel& model, Optimizer& optimizer, const TokenBatch& batch,
                           std::int64_t micro, bool mask_documents, at::Device device, Mesh* mesh = nullptr);

}  // namespace sinew
