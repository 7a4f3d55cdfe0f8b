// The whole answer to "what will this run take": the best layouts and what follows from the best of them.
#pragma once

#include <string>
#include <vector>

#include "plan/cluster.hpp"
#include "plan/search.hpp"

namespace sinew::plan {

// Of a whole run with one layout.
struct RunTotals {
  double steps = 0;
  double days = 0;  // failures included
  double accelerator_hours = 0;
  double dollars = 0;
  double megawatt_hours = 0;
  Goodput goodput;
  int spares = 0;                   // nodes
  double memory_recovery_gain = 0;  // share of wall time that recovery from memory would add
  double checkpoint_bytes = 0;
};
RunTotals run_totals(const Cluster& cluster, const Setup& setup, const StepPrediction& step, double tokens);

struct ScalePoint {
  int count;
  Candidate best;
  RunTotals totals;
  std::string bend;  // what takes the largest share of what is lost against ideal scaling
};

struct SensitivityRow {
  std::string change;
  double seconds = 0, days = 0, dollars = 0, goodput = 0;
};

struct Answer {
  Cluster cluster;
  Network network;
  Job job;
  SearchResult search;
  RunTotals totals;              // of the best layout
  std::vector<Candidate> front;  // time against memory
  std::vector<ScalePoint> scaling;
  std::vector<SensitivityRow> sensitivity;
};

struct AnswerOptions {
  int keep = 5;
  Objective objective = Objective::time;
  bool curves = false;  // also front, scaling and sensitivity (the HTML page needs them)
};

// Throws UserError when no layout fits, naming what takes the memory.
Answer answer(const Cluster& cluster, const Network& network, const Job& job, const SearchSpace& space,
              const AnswerOptions& options);

// The cheapest of the cluster and its halves, quarters and so on down to a sixteenth, for the whole run.
Answer cheapest_answer(const Cluster& cluster, const Network& network, const Job& job,
                       const SearchSpace& space, const AnswerOptions& options);

std::string answer_text(const Answer& answer);
std::string answer_json(const Answer& answer);
std::string answer_html(const Answer& answer);
// A run configuration with a [layout] that `sinew train` accepts (config/run_config.hpp): of the best layout
// that the trainer can run, started as that many processes. Throws UserError when none of the answer's is.
std::string answer_run_toml(const Answer& answer, const std::string& model);

// Two kinds of machine or far islands: each planned by itself, batch shared by speed.
struct IslandAnswer {
  std::vector<Answer> parts;
  std::vector<double> batch_share;
  double seconds = 0;   // of a step
  double exchange = 0;  // s a step for averaging
  double days = 0, dollars = 0;
};
IslandAnswer answer_islands(const Islands& islands, const Network& network, const Job& job,
                            const SearchSpace& space);
std::string islands_text(const IslandAnswer& answer, const Islands& islands);
std::string islands_json(const IslandAnswer& answer, const Islands& islands);

// A network by preset, directory or config.json; or one of the planner's own (see planner_models).
Network find_network(const std::string& name);
std::vector<std::string> planner_models();

std::vector<std::string> comparisons();  // presets of compare.hpp

}  // namespace sinew::plan
