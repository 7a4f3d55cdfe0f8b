// Weights repacked once, at load, for the instruction set in use (kernels/packed.hpp).
#pragma once

#include "engine/model.hpp"
#include "kernels/packed.hpp"

namespace sinew::engine {

struct PackedBlocks : PackedWeights {
  PackedMatrix matrix{};
  std::shared_ptr<const void> memory{};
  std::size_t bytes() const override { return packed_bytes(matrix.format, matrix.rows, matrix.cols); }
};

// The packed form of a matrix; null when it has none.
inline const PackedMatrix* packed(const WeightMatrix& w) {
  return w.packed == nullptr ? nullptr : &static_cast<const PackedBlocks&>(*w.packed).matrix;
}

// Whether products with a matrix like this take a packed form on this machine.
bool can_pack(const WeightMatrix& w);

// Memory for packed weights, aligned to 64 bytes, on huge pages where the system gives them. Throws UserError
// when there is too little.
std::shared_ptr<std::byte> packed_memory(std::size_t bytes);

// Packs every matrix that can be, on all threads; what was read of mapped files is given back to the system
// as it goes. Returns the bytes that the packed matrices take.
std::size_t pack_model(Model& model);

}  // namespace sinew::engine
