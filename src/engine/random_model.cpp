#include "engine/random_model.hpp"

#include <cmath>
#include <cstring>
#include <map>

#include "base/error.hpp"
#include "base/float_formats.hpp"
#include "base/index.hpp"
#include "base/random.hpp"
#include "base/team.hpp"
#include "engine/packing.hpp"
#include "engine/tensor_finder.hpp"
#include "quant/gguf_config.hpp"
#include "quant/gguf_export.hpp"
#include "quant/recipe.hpp"

namespace sinew::engine {
namespace {

constexpr double kSpread = 0.02;  // standard deviation of weights

// Random bits, a stream for every `key`.
void fill_random(std::byte* out, std::size_t bytes, std::uint64_t key) {
  std::uint64_t state = key * 0x9e3779b97f4a7c15 + 0x243f6a8885a308d3;
  for (std::size_t i = 0; i < bytes; i += 8) {  // splitmix64
    std::uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    std::memcpy(out + i, &z, std::min<std::size_t>(8, bytes - i));
  }
}

// The fp16 numbers of a block that make weights of kSpread out of random codes and small scales.
struct Halves {
  std::uint16_t scale, minimum;
};
Halves halves_of(BlockFormat format) {
  const auto both = [](double deviation, double middle) {  // of the codes times their small scales
    const double d = kSpread / deviation;
    return Halves{float_to_half(static_cast<float>(d)), float_to_half(static_cast<float>(d * middle))};
  };
  switch (format) {
    case BlockFormat::q4_0:
      return both(4.6, 0);
    case BlockFormat::q4_1:
      return both(4.6, -7.5);
    case BlockFormat::q5_0:
      return both(9.2, 0);
    case BlockFormat::q5_1:
      return both(9.2, -15.5);
    case BlockFormat::q8_0:
      return both(74, 0);
    case BlockFormat::iq4_nl:
      return both(68, 0);
    case BlockFormat::iq4_xs:
      return both(68 * 18.5, 0);
    case BlockFormat::q2_k:
      return both(12, 1.5);
    case BlockFormat::q3_k:
      return both(2.3 * 18.5, 0);
    case BlockFormat::q4_k:
      return both(280, 7.5);
    case BlockFormat::q5_k:
      return both(560, 15.5);
    case BlockFormat::q6_k:
      return both(74 * 18.5, 0);
    default:
      return {};
  }
}

// Rows of blocks as files have them.
void random_rows(BlockFormat format, std::int64_t cols, std::int64_t rows, std::uint64_t key,
                 std::byte* out) {
  const std::size_t bytes = block_bytes(format, size(cols)) * size(rows);
  if (block_info(format).elements == 1) {
    const Random random(key, "random weights");
    std::vector<float> values(size(cols * rows));
    random.fill_normal(values.data(), 0, values.size(), 0.0F, static_cast<float>(kSpread));
    encode_float(format, values.data(), values.size(), out);
    return;
  }
  fill_random(out, bytes, key);
  const Halves halves = halves_of(format);
  const HalfPlaces places = half_places(format);
  for (std::size_t at = 0; at < bytes; at += block_info(format).bytes) {
    std::memcpy(out + at + places.scale, &halves.scale, 2);
    if (places.minimum >= 0) std::memcpy(out + at + places.minimum, &halves.minimum, 2);
  }
}

// One tile of the packed form.
void random_tile(BlockFormat format, index_t cols, std::uint64_t key, std::byte* out) {
  const PackedLayout layout = packed_layout(format);
  fill_random(out, size(layout.tile_bytes(cols)), key);
  const Halves halves = halves_of(format);
  const bool minimum = half_places(format).minimum >= 0;
  for (index_t i = 0; i < cols / layout.elements; ++i)
    for (index_t r = 0; r < kPackedRows; ++r) {
      std::memcpy(out + i * layout.head + r * 2, &halves.scale, 2);
      if (minimum) std::memcpy(out + i * layout.head + 32 + r * 2, &halves.minimum, 2);
    }
}

// Every tensor of the file, with the format it gets. Rows are not to be read.
struct Plan {
  ModelSource source;
  std::vector<GgufSpec> specs;
  std::vector<BlockFormat> formats;
};
Plan plan_of(const ModelConfig& config, std::string_view recipe) {
  Plan plan;
  plan.source.config = config;
  plan.specs = gguf_specs(config);
  for (const GgufSpec& spec : plan.specs) {
    SourceTensor tensor{.name = spec.name, .shape = spec.shape, .fp32 = spec.fp32};
    tensor.rows.cols = spec.shape[0];
    tensor.rows.rows = 1;
    for (std::size_t i = 1; i < spec.shape.size(); ++i) tensor.rows.rows *= spec.shape[i];
    plan.source.tensors.push_back(std::move(tensor));
  }
  plan.formats = recipe_formats(plan.source, recipe);
  return plan;
}

bool is_norm(std::string_view name) { return name.find("norm") != std::string_view::npos; }

class RandomTensors : public TensorFinder {
 public:
  RandomTensors(const ModelConfig& config, std::string_view recipe, std::uint64_t seed)
      : config_(config), seed_(seed) {
    const Plan plan = plan_of(config, recipe);
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < plan.specs.size(); ++i)
      for (const TensorSpec& source : plan.specs[i].sources) {
        Entry entry{plan.formats[i], plan.specs[i].layout, source.shape};
        if (entry.packed()) bytes += entry.bytes();
        const char* const part = entry.layout == GgufLayout::key_b     ? " keys"
                                 : entry.layout == GgufLayout::value_b ? " values"
                                                                       : "";
        entries_.emplace(source.name + part, entry);
      }
    if (bytes > 0) memory_ = packed_memory(bytes);
  }

  std::optional<WeightMatrix> find(const std::string& name) const override {
    const auto found = entries_.find(name);
    if (found == entries_.end()) return std::nullopt;
    const Entry& e = found->second;
    if (e.shape.size() == 1) return ones(name, e.shape[0]);
    const bool looked_up = name.find("embed_tokens") != std::string::npos;
    return e.packed() && !looked_up ? packed_random(name, e)
                                    : plain_random(name, e.format, e.shape[0], e.shape[1]);
  }
  std::optional<WeightMatrix> key_b(const std::string& kv_b_name) const override {
    return half(kv_b_name + " keys", config_.num_attention_heads * config_.kv_lora_rank,
                config_.qk_nope_head_dim);
  }
  std::optional<WeightMatrix> value_b(const std::string& kv_b_name) const override {
    return half(kv_b_name + " values", config_.num_attention_heads * config_.v_head_dim,
                config_.kv_lora_rank);
  }
  const ModelConfig& config() const override { return config_; }
  RopeLayout rope_layout() const override { return config_.rope_layout; }
  std::shared_ptr<const void> files() const override { return nullptr; }

 private:
  struct Entry {
    BlockFormat format;
    GgufLayout layout;
    std::vector<std::int64_t> shape;
    bool packed() const {
      return shape.size() == 2 && layout != GgufLayout::key_b && layout != GgufLayout::value_b &&
             can_pack({.rows = shape[0], .cols = shape[1], .format = format});
    }
    std::size_t bytes() const { return (packed_bytes(format, shape[0], shape[1]) + 63) / 64 * 64; }
  };

  std::uint64_t key(const std::string& name) const { return hash_name(name) ^ seed_; }

  WeightMatrix ones(const std::string& name, std::int64_t cols) const {
    const std::vector<float> values(size(cols), is_norm(name) ? 1.0F : 0.0F);
    return own_matrix(name, 1, cols, values.data(), BlockFormat::f32);
  }

  WeightMatrix plain_random(const std::string& name, BlockFormat format, std::int64_t rows,
                            std::int64_t cols) const {
    WeightMatrix w{.name = name, .rows = rows, .cols = cols, .format = format};
    w.row_bytes = block_bytes(format, size(cols));
    const auto bytes = std::make_shared<std::vector<std::byte>>(w.bytes());
    parallel_tasks(rows, [&](std::ptrdiff_t r) {
      random_rows(format, cols, 1, key(name) + size(r), bytes->data() + size(r) * w.row_bytes);
    });
    w.data = bytes->data();
    w.owner = bytes;
    return w;
  }

  WeightMatrix packed_random(const std::string& name, const Entry& e) const {
    WeightMatrix w{.name = name, .rows = e.shape[0], .cols = e.shape[1], .format = e.format};
    w.row_bytes = block_bytes(e.format, size(w.cols));
    const auto out = std::make_shared<PackedBlocks>();
    std::byte* const data = memory_.get() + used_;
    used_ += e.bytes();
    out->matrix = {e.format, w.rows, w.cols, data};
    out->memory = memory_;
    const index_t tile = packed_layout(e.format).tile_bytes(w.cols);
    parallel_tasks((w.rows + kPackedRows - 1) / kPackedRows, [&](std::ptrdiff_t t) {
      random_tile(e.format, w.cols, key(name) + size(t), data + t * tile);
    });
    w.packed = out;
    return w;
  }

  std::optional<WeightMatrix> half(const std::string& name, std::int64_t rows, std::int64_t cols) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) return std::nullopt;
    return plain_random(name, found->second.format, rows, cols);
  }

  ModelConfig config_;
  std::uint64_t seed_;
  std::map<std::string, Entry> entries_;
  std::shared_ptr<std::byte> memory_;
  mutable std::size_t used_ = 0;  // each packed matrix is asked for once
};

}  // namespace

std::shared_ptr<Model> random_model(const ModelConfig& config, std::string_view recipe, std::uint64_t seed) {
  const auto model = make_model("random weights", std::make_unique<RandomTensors>(config, recipe, seed));
  pack_model(*model);
  return model;
}

void write_random_gguf(const ModelConfig& config, std::string_view recipe, std::uint64_t seed,
                       const std::filesystem::path& out) {
  Plan plan = plan_of(config, recipe);
  GgufMetadata metadata = gguf_metadata(config, "random weights");
  metadata.set_u32("general.file_type", gguf_file_type(BlockFormat::q4_k));
  // The least vocabulary that llama.cpp takes: its bench makes tokens up.
  metadata.set_string("tokenizer.ggml.model", "no_vocab");
  std::vector<GgufTensor> tensors;
  for (std::size_t i = 0; i < plan.specs.size(); ++i)
    tensors.push_back({.name = plan.specs[i].name,
                       .type = static_cast<std::uint32_t>(plan.formats[i]),
                       .shape = plan.specs[i].shape});
  GgufWriter writer(out, metadata, tensors);
  for (std::size_t i = 0; i < plan.specs.size(); ++i) {
    const RowSource& shape = plan.source.tensors[i].rows;
    const std::size_t row_bytes = block_bytes(plan.formats[i], size(shape.cols));
    constexpr std::int64_t kRows = 4096;
    std::vector<std::byte> rows(size(std::min(kRows, shape.rows)) * row_bytes);
    for (std::int64_t first = 0; first < shape.rows; first += kRows) {
      const std::int64_t count = std::min(kRows, shape.rows - first);
      parallel_tasks(count, [&](std::ptrdiff_t r) {
        std::byte* const to = rows.data() + size(r) * row_bytes;
        if (is_norm(plan.specs[i].name)) {
          const std::vector<float> ones(size(shape.cols), 1.0F);
          std::memcpy(to, ones.data(), row_bytes);
        } else {
          random_rows(plan.formats[i], shape.cols, 1,
                      (hash_name(plan.specs[i].name) ^ seed) + size(first + r), to);
        }
      });
      writer.write(rows.data(), size(count) * row_bytes);
    }
  }
  writer.commit();
}

}  // namespace sinew::engine
