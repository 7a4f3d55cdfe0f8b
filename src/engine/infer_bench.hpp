// How fast a model runs, against what this machine's memory and arithmetic allow.
#pragma once

#include <span>
#include <vector>

#include "base/median_range.hpp"
#include "engine/session.hpp"
#include "kernels/read_memory.hpp"

namespace sinew::engine {

// Of what the machine gave right after each measured pass or step, as a share of it: clocks, memory and other
// guests of a host change both alike.
struct Share {
  MedianRange range{};
  double limit = 0;  // the median of what the machine gave
};

// One pass over `tokens` tokens of an empty sequence, logits of the last.
struct PrefillFigure {
  index_t tokens = 0;
  MedianRange seconds{};
  double operations = 0;    // of all matrix products of weights
  double weight_bytes = 0;  // at least: every matrix that is read, once
  Share of_peak{};          // of 8-bit products; zeros where there are none
};
PrefillFigure bench_prefill(Session& session, index_t tokens, int repeats);

// Steps of one token for each of `batch` sequences that hold `depth` tokens.
struct DecodeFigure {
  index_t depth = 0, batch = 0;
  MedianRange seconds{};    // of a step
  double weight_bytes = 0;  // read in a step of one sequence; with more, routed experts are not known
  double cache_bytes = 0;   // read in a step
  Share of_reading{};       // of bare reading of as many bytes of the weights; for one sequence alone
};
// The depths take turns step by step, since memory is not equally fast at all times. Needs room for
// decoding_tokens() in the cache. `pattern`: of the bare reading, which follows the steps of each turn.
std::vector<DecodeFigure> bench_decode(Session& session, std::span<const index_t> depths, index_t batch,
                                       int steps, const ReadPattern& pattern);
index_t decoding_tokens(std::span<const index_t> depths, index_t batch, int steps);

// Multiplications and additions of weights for one token without the head.
double operations_per_token(const Model& model);

// Where the weights lie that decoding reads, neighbours joined, rising: all routed experts, since a token may
// choose any. What bandwidth is measured over.
std::vector<MemoryRange> decoding_memory(const Model& model);

// `bytes` bytes of the ranges one after another from byte `first` on, beginning again after the last.
std::vector<MemoryRange> memory_window(std::span<const MemoryRange> ranges, std::size_t first,
                                       std::size_t bytes);

}  // namespace sinew::engine
