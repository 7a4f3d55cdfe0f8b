// Models of random weights: of any shape, for measurements. The numbers have the spread of trained ones, the
// bits are random.
#pragma once

#include <filesystem>
#include <string_view>

#include "engine/model.hpp"

namespace sinew::engine {

// A model of this config whose matrices have the formats that `recipe` (quant/recipe.hpp) gives, made in
// memory, already packed where this machine packs: no copy in any other form exists.
std::shared_ptr<Model> random_model(const ModelConfig& config, std::string_view recipe, std::uint64_t seed);

// A GGUF file of the same tensors that other programs can run: its vocabulary is of made-up words.
void write_random_gguf(const ModelConfig& config, std::string_view recipe, std::uint64_t seed,
                       const std::filesystem::path& out);

}  // namespace sinew::engine
