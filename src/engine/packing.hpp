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

// What is done with the file of packed weights beside the model's (pack_file.hpp).
enum class PackFile { none, read, write };  // write: read it, or write it where it is missing or wrong
struct PackOptions {
  PackFile file = PackFile::none;
  std::size_t least = std::size_t{256} << 20;  // packed bytes below which packing anew costs nothing
};

// Packs every matrix that can be, on all threads; what was read of mapped files is given back to the system
// as it goes. Returns the bytes that the packed matrices take. A file of packed weights that cannot be used
// is passed over in silence, one that cannot be written with a word in the log. Models with experts on disk
// keep no file.
std::size_t pack_model(Model& model, const PackOptions& options = {});

}  // namespace sinew::engine
