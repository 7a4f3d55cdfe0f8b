#include "storage/llama2c.hpp"

#include <array>
#include <cstring>
#include <map>

#include "base/error.hpp"
#include "base/files.hpp"
#include "storage/safetensors.hpp"
#include "storage/sentencepiece_writer.hpp"

namespace sinew {
namespace {

constexpr std::size_t kHeaderBytes = 28;
constexpr std::int64_t kMaxSize = 1 << 24;  // of any one size in a header

// Where each weight lies, in floats after the header: HF's name of a layer's weight -> start of layer 0; the
// weights of all layers stand together.
struct Layout {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> layers;  // suffix -> (start, elements a layer)
  std::int64_t norm = 0, head = 0, total = 0;
};

Layout layout_of(const ModelConfig& c) {
  const std::int64_t kv = c.num_key_value_heads * c.head_dim, dim = c.hidden_size;
  Layout layout;
  std::int64_t at = c.vocab_size * dim;
  const auto region = [&](const char* name, std::int64_t elements) {
    layout.layers[name] = {at, elements};
    at += c.num_hidden_layers * elements;
  };
  region("input_layernorm.weight", dim);
  region("self_attn.q_proj.weight", dim * dim);
  region("self_attn.k_proj.weight", kv * dim);
  region("self_attn.v_proj.weight", kv * dim);
  region("self_attn.o_proj.weight", dim * dim);
  region("post_attention_layernorm.weight", dim);
  region("mlp.gate_proj.weight", c.intermediate_size * dim);  // w1
  region("mlp.down_proj.weight", dim * c.intermediate_size);  // w2
  region("mlp.up_proj.weight", c.intermediate_size * dim);    // w3
  layout.norm = at;
  at += dim;
  at += c.max_position_embeddings * c.head_dim;  // cosines and sines of old
  layout.head = c.tie_word_embeddings ? 0 : at;
  layout.total = at + (c.tie_word_embeddings ? 0 : c.vocab_size * dim);
  return layout;
}

ModelConfig parse_header(std::span<const std::byte> file, const std::string& origin) {
  require(file.size() >= kHeaderBytes, "{}: not a llama2.c checkpoint: {} bytes", origin, file.size());
  std::array<std::int32_t, 7> header;
  std::memcpy(header.data(), file.data(), kHeaderBytes);
  constexpr std::int32_t kVersioned = 0x616b3432;
  require(header[0] != kVersioned, "{}: a versioned llama2.c checkpoint; export it with --version 0", origin);
  ModelConfig c;
  c.model_type = "llama";
  c.hidden_size = header[0];
  c.intermediate_size = header[1];
  c.num_hidden_layers = header[2];
  c.num_attention_heads = header[3];
  c.num_key_value_heads = header[4];
  c.vocab_size = std::abs(std::int64_t{header[5]});
  c.max_position_embeddings = header[6];
  c.tie_word_embeddings = header[5] > 0;  // a negative vocabulary size marks a classifier of its own
  c.rms_norm_eps = 1e-5;
  c.bos_token_ids = {1};
  c.eos_token_ids = {2};
  for (const std::int64_t size :
       {c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads,
        c.vocab_size, c.max_position_embeddings}) {
    require(size > 0 && size <= kMaxSize, "{}: not a llama2.c checkpoint: its header says {}", origin, size);
  }
  require(
      c.hidden_size % (2 * c.num_attention_heads) == 0 && c.num_attention_heads % c.num_key_value_heads == 0,
      "{}: not a llama2.c checkpoint: {} heads and {} key heads do not divide the width {}", origin,
      c.num_attention_heads, c.num_key_value_heads, c.hidden_size);
  c.head_dim = c.hidden_size / c.num_attention_heads;
  // Sizes up to 2^24 keep each region under 2^48 elements and a layer count of 2^24 under 2^72: check in
  // double first.
  const double rough = static_cast<double>(c.num_hidden_layers) * static_cast<double>(c.hidden_size) *
                       static_cast<double>(c.hidden_size + c.intermediate_size);
  const auto held = static_cast<std::int64_t>(file.size() - kHeaderBytes);
  require(rough < static_cast<double>(held), "{}: truncated, or not a llama2.c checkpoint", origin);
  const std::int64_t needed = 4 * layout_of(c).total;
  require(held == needed,
          "{}: truncated, or not a llama2.c checkpoint: its sizes need {} bytes, the file holds {}", origin,
          needed + static_cast<std::int64_t>(kHeaderBytes), file.size());
  return c;
}

// From rows of adjacent pairs (x0,y0,x1,y1..) to rows of halves (x0,x1..,y0,y1..), head by head. [rows,
// width]
std::vector<float> pairs_to_halves(const float* weight, std::int64_t rows, std::int64_t width,
                                   std::int64_t head_dim) {
  std::vector<float> out(static_cast<std::size_t>(rows * width));
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t head = row / head_dim, in_head = row % head_dim;
    const std::int64_t target = head * head_dim + in_head % 2 * (head_dim / 2) + in_head / 2;
    std::memcpy(out.data() + target * width, weight + row * width,
                static_cast<std::size_t>(width) * sizeof(float));
  }
  return out;
}

// Start of the weight with this HF name.
std::int64_t find_weight(const Layout& layout, const std::string& name) {
  if (name == "model.embed_tokens.weight") return 0;
  if (name == "model.norm.weight") return layout.norm;
  if (name == "lm_head.weight") return layout.head;
  constexpr std::string_view kLayers = "model.layers.";
  ensure(name.starts_with(kLayers), "no place for '{}' in a llama2.c checkpoint", name);
  std::size_t digits = 0;
  const std::int64_t layer = std::stoll(name.substr(kLayers.size()), &digits);
  const auto found = layout.layers.find(name.substr(kLayers.size() + digits + 1));
  ensure(found != layout.layers.end(), "no place for '{}' in a llama2.c checkpoint", name);
  return found->second.first + layer * found->second.second;
}

}  // namespace

ModelConfig read_llama2c_config(const std::filesystem::path& checkpoint) {
  const MappedFile file(checkpoint);
  return parse_header(file.bytes(), checkpoint.string());
}

void convert_llama2c(const std::filesystem::path& checkpoint, const std::filesystem::path& out) {
  const MappedFile file(checkpoint);
  const ModelConfig config = parse_header(file.bytes(), checkpoint.string());
  const Layout layout = layout_of(config);
  const auto* weights = reinterpret_cast<const float*>(file.data() + kHeaderBytes);
  std::vector<TensorInfo> infos;
  for (const TensorSpec& spec : tensor_specs(config)) {
    infos.push_back({.name = spec.name, .dtype = DType::F32, .shape = spec.shape});
  }
  SafetensorsWriter writer(out / "model.safetensors", infos, {{"format", "pt"}});
  for (const TensorInfo& info : infos) {
    const float* weight = weights + find_weight(layout, info.name);
    const std::size_t bytes = static_cast<std::size_t>(info.elements()) * sizeof(float);
    if (info.name.ends_with("q_proj.weight") || info.name.ends_with("k_proj.weight")) {
      writer.write(pairs_to_halves(weight, info.shape[0], info.shape[1], config.head_dim).data(), bytes);
    } else {
      writer.write(weight, bytes);
    }
  }
  file.check();
  writer.commit();
  write_file_atomic(out / "config.json", write_model_config(config));
}

std::string convert_llama2c_tokenizer(const std::filesystem::path& tokenizer, std::int64_t vocab_size) {
  const std::string text = read_file(tokenizer, std::uint64_t{1} << 28);
  std::size_t at = 0;
  const auto take = [&](std::size_t count) {
    require(count <= text.size() - at, "{}: truncated, or not a llama2.c tokenizer of {} tokens",
            tokenizer.string(), vocab_size);
    at += count;
    return text.data() + at - count;
  };
  take(4);  // length of the longest token
  std::vector<WrittenPiece> pieces;
  for (std::int64_t id = 0; id < vocab_size; ++id) {
    WrittenPiece piece;
    std::int32_t length = 0;
    std::memcpy(&piece.score, take(4), 4);
    std::memcpy(&length, take(4), 4);
    require(length >= 0, "{}: token {} has a negative length", tokenizer.string(), id);
    const std::string_view bytes(take(static_cast<std::size_t>(length)), static_cast<std::size_t>(length));
    // The export writes spaces plainly and puts line feeds around the two control tokens.
    for (const char c : bytes) c == ' ' ? void(piece.piece += "\u2581") : piece.piece.push_back(c);
    if (id == 0) piece.type = PieceType::unknown;
    if (id == 1 || id == 2) piece = {id == 1 ? "<s>" : "</s>", piece.score, PieceType::control};
    if (id >= 3 && id < 259 && piece.piece == fmt::format("<0x{:02X}>", id - 3)) piece.type = PieceType::byte;
    pieces.push_back(std::move(piece));
  }
  require(at == text.size(), "{}: holds more than the {} tokens of the model", tokenizer.string(),
          vocab_size);
  return write_sentencepiece_model(pieces);
}

}  // namespace sinew
