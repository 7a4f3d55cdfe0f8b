// The layouts of a training run on a cluster: all of them, the best by time or memory, and why one is not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/step.hpp"

namespace sinew::plan {

// What may be chosen. Empty lists mean every sensible value.
struct SearchSpace {
  std::vector<int> tensor, context, expert, expert_tensor, pipeline, chunks, micro_batch, zero;
  std::vector<ScheduleKind> schedules;
  std::vector<Recompute> recompute;
  std::vector<Precision> precisions;  // default: the job's
  std::vector<int> node_limits;
  bool offload = true;  // also with the optimizer in host memory
};

enum class Objective { time, memory };

struct Candidate {
  Setup setup;
  StepPrediction step;  // memory filled in
};

struct SearchResult {
  std::vector<Candidate> best;   // in order
  std::uint64_t considered = 0;  // valid layouts, pruned ones included
  std::uint64_t simulated = 0;
  double seconds = 0;
};

// The `keep` best layouts that fit in memory. Exact: what is pruned has a lower bound above the worst one
// kept. The result does not depend on the number of threads. `memory_limit` 0: the chip's.
SearchResult search_layouts(const Setup& base, const SearchSpace& space, const Constants& constants, int keep,
                            Objective objective = Objective::time, double memory_limit = 0);

// Every layout predicted, nothing pruned: the reference that tests hold the search against.
SearchResult search_by_brute_force(const Setup& base, const SearchSpace& space, const Constants& constants,
                                   int keep, Objective objective = Objective::time);

// Fastest layouts at falling memory limits: the front of time against memory.
std::vector<Candidate> memory_front(const Setup& base, const SearchSpace& space, const Constants& constants);

// A layout from text: "tp=4 pp=8 vpp=2 dp=64 ep=32 mb=1 zero=1 schedule=interleaved recompute=full sp=1".
// What is not given keeps the values of `base`; dp follows from the count. Unknown keys throw UserError.
Layout parse_layout(const std::string& text, const Setup& base);
std::string layout_text(const Layout& layout);

// What may be chosen, from text: "tp=1,2,4 zero=1 recompute=none,full schedule=1f1b,interleaved offload=0".
// Degrees not named stay free. Unknown keys throw UserError.
SearchSpace parse_space(const std::string& text);

// Why a layout is not the best: the rule it breaks, or its time beside the best one's, term by term.
std::string why_not(const Setup& asked, const Candidate& best, const Constants& constants);

}  // namespace sinew::plan
