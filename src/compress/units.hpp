// The weight matrices of a model as compression sees them: each with its place in the GGUF file, its slot in
// a layer, and the input that is multiplied with it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compress/layer_runner.hpp"
#include "quant/model_source.hpp"

namespace sinew::compress {

enum class Part { attention, shared, expert, dense, embedding, head };

// What is multiplied with one matrix, or with several.
struct UnitInput {
  std::string name;  // of the first matrix that reads it
  index_t cols = 0;
  Part part = Part::attention;
  int pool = -1;  // experts: inputs with the same number stand in for one another where one was hardly seen
};

struct Unit {
  std::string name;        // of the public checkpoint; ".key_b.3" and ".value_b.3" after kv_b_proj's for MLA
  std::size_t tensor = 0;  // number in ModelSource.tensors
  index_t first_row = 0;   // of this matrix in that tensor
  index_t rows = 0, cols = 0;  // as the tensor has them
  std::size_t input = 0;       // number in LayerUnits.inputs
  Part part = Part::attention;
  index_t expert = -1;
  // Rows are those of `slot`, but for q and k of a llama directory, whose halves GGUF turns to pairs within
  // heads of this many rows (0: no).
  index_t turned = 0;
  std::function<WeightMatrix&(Layer&)> slot{};
};

struct LayerUnits {
  std::vector<UnitInput> inputs;
  std::vector<Unit> units;
};

// Finds tensors of the file by the names of the public checkpoint.
class TensorPlaces {
 public:
  explicit TensorPlaces(const ModelSource& source);
  struct Place {
    std::size_t tensor = 0;
    index_t first_row = 0, rows = 0;
    bool turned = false;
  };
  // `name` may end in "#key" or "#value" for the halves of kv_b_proj; null when the file has no such tensor.
  const Place* find(const std::string& name) const;

 private:
  std::map<std::string, Place> places_;
};

// The matrices of one decoder layer. Those that the file keeps in F32 (the router) are left out, and so is
// kv_b_proj where the file holds it in one piece.
LayerUnits layer_units(const ModelSource& source, const TensorPlaces& places, const Model& model,
                       index_t layer);

// Sets the unit's slot to values in GGUF order and format, at `data` (which must outlive the layer's use).
void set_unit(const Unit& unit, BlockFormat format, const std::byte* data, Layer& layer);

}  // namespace sinew::compress
