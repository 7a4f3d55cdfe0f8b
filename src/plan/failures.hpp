// What failures do to a run: effective training time by formula and by Monte Carlo, the best checkpoint
// interval, spares, and the worth of recovering from memory.
//
// Work goes on in intervals of `interval` seconds, each followed by a checkpoint that stops training for
// `checkpoint` seconds. A failure loses what was done since the last checkpoint and costs `restart` seconds
// (detection, a new process group, loading); failures come at a constant rate, during restarts too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinew::plan {

// Failures of one component, a million accelerator-hours.
struct ComponentRate {
  std::string name;
  double per_million_hours;
};

struct FailureModel {
  // A job-stopping failures rate. Llama 3's 16,384 H100: 419 unexpected interruptions in 54 days, by the
  // causes of its Table 5 (default_components).
  std::vector<ComponentRate> components;
  double detect = 60, restart = 300,
         load = 120;      // s: notice, start processes and groups, read the checkpoint
  double checkpoint = 5;  // s that training stops for one
  double interval = 0;    // s of work between checkpoints; 0: the best
  // Copies in the memory of peers, if used: taken every `memory_interval` s at `memory_checkpoint` s each; a
  // share of failures (those of one node) is recovered from them in `memory_restart` s.
  bool in_memory = false;
  double memory_interval = 60, memory_checkpoint = 0.2, memory_restart = 120, memory_share = 0.9;
  double repair_hours = 24;  // until a failed node is back
  int accelerators_per_node = 8;
  double hardware_share = 0.78;  // of failures that take a node out (Llama 3, section 3.3.4)

  double recovery() const { return detect + restart + load; }
};

std::vector<ComponentRate> default_components();
FailureModel default_failures();

double failures_per_hour(const FailureModel& model, double accelerators);

struct Goodput {
  double share = 1;     // of wall time that is training kept
  double interval = 0;  // s between checkpoints
  double failures = 0;  // over the run
  double mtbf_hours = 0;
  double checkpoint_loss = 0, rework_loss = 0, restart_loss = 0;  // shares of wall time
};

// Of a run that needs `work` seconds without failures. Throws UserError when the run would never end.
Goodput goodput_formula(const FailureModel& model, double accelerators, double work);

// The interval that loses least (Daly 2006's optimum, found on the exact formula).
double best_interval(const FailureModel& model, double accelerators);

struct MonteCarlo {
  double share = 0, deviation = 0;  // mean over trials, and the standard deviation of one
  double failures = 0;
  double waiting = 0;  // share of time with too few nodes
  int trials = 0;
};

// Plays the run failure by failure. `spares`: nodes ready to take over; below 0: as many as are ever needed.
MonteCarlo goodput_monte_carlo(const FailureModel& model, double accelerators, double work, int trials,
                               std::uint64_t seed, int spares = -1);

// Spare nodes so that a replacement is at hand with this probability.
int spares_needed(const FailureModel& model, double accelerators, double probability = 0.99);

}  // namespace sinew::plan
