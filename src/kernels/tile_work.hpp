// What is done with a tile of sums, 32 x 32 of fp32, once a product has made them: rows at a time, so that it
// can be done beside the next product (tile_pipeline.hpp).
#pragma once

#include <cstdint>

#include "base/index.hpp"

namespace sinew {

template <class T>
struct TileWork {
  enum class Kind {
    rows,            // out + (index or r) * ld (+)= tile * weight
    sums,            // the same into `sums`, fp32
    swiglu,          // act = silu(gate) * up; gate and up are kept
    swiglu_backward  // from the gradient of act: those of gate and up, and the weighted act
  };
  Kind kind = Kind::rows;
  index_t rows = 0;                // of the tile
  index_t columns = 0;             // rows, sums; 32 otherwise
  const float* tile = nullptr;     // gate's; backward: the gradient of act before weighting
  index_t ld_tile = 32;            // rows, sums; 32 otherwise
  const float* up_tile = nullptr;  // up's
  const float* weight = nullptr;   // [rows], or null: 1
  bool past = false;               // stored past the caches where that is possible: memory is not read before
  bool accumulate = false;         // it is written; publish() before other threads read it

  // rows, sums: row r goes to place index[r], or r where that is null.
  T* out = nullptr;
  float* sums = nullptr;
  index_t ld = 0;
  const std::int32_t* index = nullptr;

  // swiglu: kept gate and up products, of stride 32: written forward, read backward.
  T* gate = nullptr;
  T* up = nullptr;
  T* act = nullptr;  // backward: times weight
  index_t ld_act = 0;
  // swiglu_backward: dot[r] += sum over columns of tile * act, the gradient of weight[r].
  float* dot = nullptr;
  T* d_gate = nullptr;
  T* d_up = nullptr;
  index_t ld_d = 0;
};

// Does rows [from, to) of a work.
template <class T>
using TileRows = void (*)(const TileWork<T>& work, index_t from, index_t to);

}  // namespace sinew
