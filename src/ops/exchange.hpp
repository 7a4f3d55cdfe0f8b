// Rows that travel to other processes and whose gradients travel back.
//
//   Exchange trip(group, sent, received);
//   auto arriving = trip.start(x, extra);   // on their way
//   ... work on something else ...
//   auto [y, more] = trip.finish(arriving); // there
//
// In the backward pass the gradients leave when it reaches finish() and are waited for at start(), so what
// was done between the two overlaps with them as well. Every member of the group must call both, and run
// backward through both, whatever its counts are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/group.hpp"

namespace sinew {

// In which form rows travel; what accompanies them always goes as it is.
enum class RowFormat { exact, bf16, fp8 };

struct RowPair {
  at::Tensor rows;   // [M, H]
  at::Tensor extra;  // [M, ..] fp32, or undefined
};

class Exchange {
 public:
  // sent[r] rows go to member r, received[r] come from it. `there` is the form of the rows, `back` that of
  // their gradients.
  Exchange(GroupPtr group, std::vector<std::int64_t> sent, std::vector<std::int64_t> received,
           RowFormat there = RowFormat::exact, RowFormat back = RowFormat::exact);

  RowPair start(const at::Tensor& rows, const at::Tensor& extra = {});
  RowPair finish(const RowPair& arriving);

  struct Trip;  // what the two autograd nodes share

 private:
  std::shared_ptr<Trip> trip_;
};

}  // namespace sinew
