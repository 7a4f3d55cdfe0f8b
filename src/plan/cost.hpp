// The time of one layer on one rank for one micro-batch: every operation as FLOPs and bytes on this chip,
// every collective as latency and bytes on its level of the network.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "plan/constants.hpp"
#include "plan/setup.hpp"

namespace sinew::plan {

// Where time goes.
enum class Term { products, attention, memory, launch, tensor, context, expert, count_ };
inline constexpr int term_count = static_cast<int>(Term::count_);
const char* term_name(Term term);

struct PassCost {
  std::array<double, term_count> seconds{};
  double total() const {
    double sum = 0;
    for (const double s : seconds) sum += s;
    return sum;
  }
  double& operator[](Term term) { return seconds[static_cast<int>(term)]; }
  double operator[](Term term) const { return seconds[static_cast<int>(term)]; }
  PassCost& operator+=(const PassCost& other) {
    for (int i = 0; i < term_count; ++i) seconds[i] += other.seconds[i];
    return *this;
  }
};

// One operation, for the tables that explain a plan. FLOPs and bytes of the forward pass on one rank.
struct Operation {
  std::string name;
  double flops, bytes;
  double forward, backward;  // s
};

struct LayerCost {
  PassCost forward, backward_input, backward_weight;  // recomputation is in backward_input
  double saved_bytes = 0;                             // activations held from forward to backward
  double working_bytes = 0;  // what the backward pass of the layer needs beside these
};

enum class FeedForward { dense, moe, none };

// `windowed`: the layer's attention looks at the network's window only.
LayerCost layer_cost(const Setup& setup, const Constants& constants, FeedForward feed_forward, bool windowed,
                     std::vector<Operation>* operations = nullptr);
// The embedding lookup, and the output head with its loss.
LayerCost embedding_cost(const Setup& setup, const Constants& constants);
LayerCost head_cost(const Setup& setup, const Constants& constants);

// FLOP/s that a large product reaches in training.
double product_rate(const Setup& setup, const Constants& constants, Precision precision);

// Bytes/s of one rank in a ring over `ranks` ranks of which `local` share a scale-up domain: inside it the
// fabric, across it the network cards of all local members together (collectives use one ring a card).
double ring_bandwidth(const Setup& setup, const Constants& constants, int ranks, int local);
// All-gather or reduce-scatter of `bytes` (the whole, gathered size); an all-reduce takes two of them.
double gather_seconds(const Setup& setup, const Constants& constants, double bytes, int ranks, int local);
// How many ranks of a group of `ranks`, `stride` apart, lie in one scale-up domain.
int local_members(const Setup& setup, int ranks, int stride);

}  // namespace sinew::plan
