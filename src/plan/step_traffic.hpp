// The bytes that each process of a layout sends in one training step: what the trainer's counters
// (comm/traffic.hpp) show, exactly, from the formulas of config/traffic_formulas.hpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "config/traffic_formulas.hpp"
#include "plan/trainer_state.hpp"

namespace sinew::plan {

// What a step works on, and what of it makes processes speak.
struct StepWork {
  std::int64_t rows = 1;  // of a micro-batch on one replica
  std::int64_t sequence = 0, micro_batches = 1;
  bool bf16 = false;
  bool recompute = false;       // full: layers speak once more in the backward pass
  bool mask_documents = false;  // replicas count their targets
  bool muon = false;
  bool stop_signal = true;  // asked for after each step (`sinew train` does)
  enum class Balance { none, by_sequence, by_batch, joint } balance = Balance::none;
  std::int64_t device_groups = 0;  // of a communication-level loss; 0: none
};

// Rows that go to experts of other processes and come from there, over all layers and micro-batches of a step
// (`calls` is not looked at): to the experts' processes, or with a node limit first to the nodes and then
// inside them.
struct RoutedRows {
  ExchangedRows direct, nodes, inside;
};
// As routing sends them when all experts are chosen equally often (rounded).
RoutedRows even_rows(const ModelConfig& model, const sinew::Layout& layout, const StepWork& work,
                     const Place& place);

// Bytes by (group, operation), as TrafficCounters has them; groups of one process are not in it.
using SentBytes = std::map<std::pair<std::string, std::string>, std::int64_t>;
SentBytes step_traffic(const ModelConfig& model, const sinew::Layout& layout, const StepWork& work,
                       const Place& place, const RoutedRows& rows);

// How often a step gathers the weights of each unit of `held` and scatters its gradients (zero 3 and 2), by
// unit: a walk through the trainer's actions.
struct UnitPasses {
  std::vector<std::int64_t> gathers, scatters;
};
UnitPasses unit_passes(const ModelConfig& model, const sinew::Layout& layout, const HeldNetwork& held,
                       const StepWork& work, const Place& place);

}  // namespace sinew::plan
