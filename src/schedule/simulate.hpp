// What a schedule costs: its actions executed in order by every rank, each waiting for what it needs.
#pragma once

#include <string>
#include <vector>

#include "schedule/schedule.hpp"

namespace sinew {

// Of one virtual stage and one micro-batch. Times in any one unit; a whole backward takes
// backward_input + backward_weight.
struct StageCost {
  double forward = 1, backward_input = 1, backward_weight = 1;
  double activation = 1;  // bytes held from the forward pass to the end of the (input) backward pass
  double kept = 1;        // of these, held until the weight gradient when backward is split
};

double time_of(const StageCost& cost, Pass pass);

struct TimedAction {
  double start, end;
};

struct Simulation {
  double makespan = 0;
  std::vector<double> busy;                        // by rank
  std::vector<double> peak_activation;             // by rank, in the unit of StageCost::activation
  std::vector<std::vector<TimedAction>> timeline;  // [rank][action]
  // The share of rank-time that is idle: 1 - sum(busy) / (ranks x makespan).
  double bubble_share = 0;
};

// `stages` holds one cost for each virtual stage, or one for all. `send` is the time between the end of
// an action and the start of what waits for it on another rank. Throws UserError when the schedule hangs.
Simulation simulate(const Schedule& schedule, const std::vector<StageCost>& stages, double send = 0);

// Peak of the activations held, by rank; times do not matter.
std::vector<double> peak_activations(const Schedule& schedule, const std::vector<StageCost>& stages);

// The timeline drawn with one row a rank: text with one column a `unit` of time (at most `columns` wide),
// and an SVG picture of its own.
std::string draw_text(const Schedule& schedule, const Simulation& simulation, int columns = 240);
std::string draw_svg(const Schedule& schedule, const Simulation& simulation, const std::string& title);

}  // namespace sinew
