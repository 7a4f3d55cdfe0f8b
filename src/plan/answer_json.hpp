// Pieces of JSON and text that answers and comparisons share. Inside this room only.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "plan/answer.hpp"

namespace sinew::plan {

using nlohmann::ordered_json;

ordered_json step_json(const Candidate& candidate);
ordered_json totals_json(const RunTotals& totals);
std::string dollars(double amount);

}  // namespace sinew::plan
