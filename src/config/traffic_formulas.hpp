// How many bytes one process sends, as closed formulas (docs/communication.md): first of each collective,
// then of what a stage of a network does for one micro-batch along each axis of a layout. The counters of
// comm/traffic.hpp equal them exactly.
#pragma once

#include <algorithm>
#include <cstdint>

#include "config/layout.hpp"
#include "config/stages.hpp"

namespace sinew {

// Of collectives. `n` is the number of members, `rank` the sender, sizes are elements of `width` bytes.

// Up to this many elements an all-reduce is one exchange of everything, above it a reduce-scatter and an
// all-gather.
inline constexpr std::int64_t kSmallReduction = 1024;

constexpr std::int64_t all_gather_bytes(std::int64_t piece, std::int64_t n, std::int64_t width) {
  return (n - 1) * piece * width;
}
constexpr std::int64_t reduce_scatter_bytes(std::int64_t piece, std::int64_t n, std::int64_t width) {
  return (n - 1) * piece * width;
}
constexpr std::int64_t all_reduce_bytes(std::int64_t elements, std::int64_t n, std::int64_t rank,
                                        std::int64_t width) {
  if (elements <= kSmallReduction) return (n - 1) * elements * width;
  const auto own = part_begin(elements, n, rank + 1) - part_begin(elements, n, rank);
  return (elements - own + (n - 1) * own) * width;
}

// Tokens that the cross-entropy over a cut vocabulary takes at a time where a process has `rows` rows of it:
// logits of at most 2^23 elements.
constexpr std::int64_t cross_entropy_chunk(std::int64_t rows) {
  return std::max<std::int64_t>(64, (std::int64_t{1} << 23) / rows);
}

// A micro-batch as the processes of one replica see it.
struct MicroBatch {
  std::int64_t rows = 1, tokens = 0;  // tokens of a whole row
  std::int64_t width = 4;             // bytes of an activation
};

// Tensor axis: elements that a process sends to each other member in gathers and in sums scattered, forward.
// Each is the other's backward pass. `layers` are computed twice with full recomputation, `ends` (embedding,
// head) never.
struct TokenMoves {
  std::int64_t gathered = 0, scattered = 0;
};
struct TensorMoves {
  TokenMoves layers, ends;
};
TensorMoves tensor_moves(const ModelConfig& config, const StagePart& part, const Layout& layout,
                         const MicroBatch& batch);
// Bytes of the cross-entropies' all-reduces at the head, by the member `rank` of the tensor group.
std::int64_t cross_entropy_bytes(const ModelConfig& config, const Layout& layout, const MicroBatch& batch,
                                 std::int64_t rank);

// Context axis: bytes that keys, values and their gradients take round the ring in one layer.
struct RingBytes {
  std::int64_t forward = 0, backward = 0;
};
RingBytes ring_bytes(const ModelConfig& config, const Layout& layout, const MicroBatch& batch);

// Pipeline axis: bytes of what goes from one stage to the next, and of its gradient back. `joint`: with the
// sums of a balancing loss over all layers.
std::int64_t stage_flow_bytes(const ModelConfig& config, const Layout& layout, const MicroBatch& batch,
                              bool joint);

// Layers with routed experts that a stage computes, multi-token prediction included.
std::int64_t moe_layers(const ModelConfig& config, const StagePart& part);

// Expert axis. `out` rows go from a process to others' experts, `in` come from them, over a group of
// `members`, in `calls` layers (and micro-batches). Bytes of the forward pass, and of the backward pass.
struct ExchangedRows {
  std::int64_t calls = 0, out = 0, in = 0;
};
struct ExpertBytes {
  std::int64_t forward = 0, backward = 0;
};
// A row for each assignment, to the process of its expert; `experts` lie on the group.
ExpertBytes expert_bytes(const ModelConfig& config, const Layout& layout, std::int64_t members,
                         std::int64_t experts, const ExchangedRows& rows, std::int64_t width);
// A row for each node that a token visits (layout.node_limit).
ExpertBytes node_bytes(const ModelConfig& config, const Layout& layout, std::int64_t nodes,
                       const ExchangedRows& rows, std::int64_t width);

}  // namespace sinew
