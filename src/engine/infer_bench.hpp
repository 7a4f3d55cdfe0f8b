// How fast a model runs, against what this machine's memory and arithmetic allow.
#pragma once

#include <span>
#include <vector>

#include "engine/session.hpp"
#include "kernels/read_memory.hpp"

namespace sinew::engine {

struct Timing {
  double best = 0, median = 0, worst = 0;  // seconds
};

// One pass over `tokens` tokens of an empty sequence, logits of the last.
struct PrefillFigure {
  index_t tokens = 0;
  Timing time{};
  double operations = 0;    // of all matrix products of weights
  double weight_bytes = 0;  // at least: every matrix that is read, once
};
PrefillFigure bench_prefill(Session& session, index_t tokens, int repeats);

// Steps of one token for each of `batch` sequences that hold `depth` tokens.
struct DecodeFigure {
  index_t depth = 0, batch = 0;
  Timing time{};            // of a step
  double weight_bytes = 0;  // read in a step of one sequence; with more, routed experts are not known
  double cache_bytes = 0;   // read in a step
};
// The depths take turns step by step, since memory is not equally fast at all times. Needs room for
// decoding_tokens() in the cache.
std::vector<DecodeFigure> bench_decode(Session& session, std::span<const index_t> depths, index_t batch,
                                       int steps);
index_t decoding_tokens(std::span<const index_t> depths, index_t batch, int steps);

// Multiplications and additions of weights for one token without the head.
double operations_per_token(const Model& model);

// Where the weights lie that decoding reads, neighbours joined, rising: all routed experts, since a token may
// choose any. What bandwidth is measured over.
std::vector<MemoryRange> decoding_memory(const Model& model);

}  // namespace sinew::engine
