// Which rows go to which expert.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/gemm.hpp"

namespace sinew {

// The choices of all tokens, sorted by expert. A slot is one choice: token * top_k + rank.
struct ExpertRows {
  index_t tokens = 0, top_k = 0;
  std::vector<std::int32_t> offsets;   // [experts + 1]: expert e has rows offsets[e] .. offsets[e+1]-1
  std::vector<std::int32_t> slots;     // [rows], rising within an expert
  std::vector<std::int32_t> token_of;  // [rows] = slots / top_k
  index_t rows() const { return static_cast<index_t>(slots.size()); }
  index_t experts() const { return static_cast<index_t>(offsets.size()) - 1; }
};

// Counting sort of `expert` [tokens, top_k]; negative entries (dropped by capacity) are left out. Errors: an
// entry >= experts. Memory of `out` is reused.
void sort_by_expert(const std::int64_t* expert, index_t tokens, index_t top_k, index_t experts,
                    ExpertRows& out);

// Every token to the one expert there is: a dense layer.
void all_to_one(index_t tokens, ExpertRows& out);

}  // namespace sinew
