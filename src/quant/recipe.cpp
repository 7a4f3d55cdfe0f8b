#include "quant/recipe.hpp"

#include <strings.h>

#include <array>
#include <charconv>
#include <string>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew {
namespace {

struct Mixture {
  std::string_view name;
  BlockFormat base, more;
};
constexpr std::array kMixtures{
    Mixture{"Q3_K_M", BlockFormat::q3_k, BlockFormat::q5_k},
    Mixture{"Q4_K_M", BlockFormat::q4_k, BlockFormat::q6_k},
    Mixture{"Q5_K_M", BlockFormat::q5_k, BlockFormat::q6_k},
};

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// The layer of "blk.12.attn_v.weight"; -1 for the others.
std::int64_t layer_of(std::string_view name) {
  std::int64_t layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

// The first and last eighth of the layers, and every third of the others (llama.cpp's use_more_bits).
bool needs_more_bits(std::int64_t layer, std::int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

bool gets_more(const SourceTensor& tensor, std::int64_t layers) {
  if (tensor.name == "output.weight") return true;
  const std::int64_t layer = layer_of(tensor.name);
  const bool kind =
      tensor.name.find(".attn_v") != std::string::npos || tensor.name.find(".ffn_down") != std::string::npos;
  return layer >= 0 && kind && needs_more_bits(layer, layers);
}

}  // namespace

BlockFormat fitting_format(BlockFormat format, std::int64_t cols) {
  if (cols % static_cast<std::int64_t>(block_info(format).elements) == 0) return format;
  if (cols % 32 != 0) return BlockFormat::f16;
  switch (format) {
    case BlockFormat::q2_k:
    case BlockFormat::q3_k:
    case BlockFormat::iq4_xs:
      return BlockFormat::iq4_nl;
    case BlockFormat::q4_k:
      return BlockFormat::q5_0;
    case BlockFormat::q5_k:
      return BlockFormat::q5_1;
    default:
      return BlockFormat::q8_0;
  }
}

bool quantizable(const SourceTensor& tensor) { return !tensor.fp32 && tensor.shape.size() >= 2; }

std::vector<BlockFormat> recipe_formats(const ModelSource& source, std::string_view name) {
  Mixture mixture{name, BlockFormat::f32, BlockFormat::f32};
  std::vector<std::string> known;
  bool found = false;
  for (const Mixture& row : kMixtures) {
    known.emplace_back(row.name);
    if (!same_name(row.name, name)) continue;
    mixture = row;
    found = true;
  }
  for (const BlockInfo& info : block_formats()) known.emplace_back(info.name);
  if (const BlockInfo* info = find_block_format(name); !found && info != nullptr) {
    mixture.base = mixture.more = info->format;
    found = true;
  }
  require(found, "unknown type '{}'{}; known are {}", name, did_you_mean(name, known), join(known, ", "));
  std::vector<BlockFormat> formats;
  for (const SourceTensor& tensor : source.tensors) {
    const BlockFormat format =
        gets_more(tensor, source.config.num_hidden_layers) ? mixture.more : mixture.base;
    formats.push_back(quantizable(tensor) ? fitting_format(format, tensor.rows.cols) : BlockFormat::f32);
  }
  return formats;
}

}  // namespace sinew
