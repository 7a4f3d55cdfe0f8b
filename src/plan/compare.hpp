// Several models or clusters side by side.
#pragma once

#include <string>
#include <vector>

#include "plan/answer.hpp"

namespace sinew::plan {

struct Comparison {
  Cluster cluster;
  std::string model;  // for find_network()
  Job job;
};

// Each planned by itself; one that does not fit says so in its line.
std::string compare(const std::vector<Comparison>& rows, bool json);

// eras: a 236B MoE with 21B active on 8.1T tokens and 10,240 accelerators beside a 1.7T one with 250B active
// on 98,304. moe-10t-ascend: 10T parameters, 2,048 experts, on 98,304 Ascend chips. Other names throw
// UserError.
std::vector<Comparison> comparison_preset(const std::string& name);

}  // namespace sinew::plan
