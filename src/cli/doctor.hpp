// What `sinew doctor` gathers; the part that needs libtorch is in torch/doctor_torch.cpp.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sinew::cli {

struct Diagnosis {
  nlohmann::ordered_json facts;
  std::vector<std::pair<std::string, std::string>> lines;  // name and value, for people
  std::vector<std::string> advice;                         // what is missing and how to get it
};

// A measured matrix-product peak, FLOP/s, under facts.gemm_peak[`where`].
void add_products(Diagnosis& diagnosis, const std::string& where, double fp32, double bf16);
void add_torch_diagnosis(Diagnosis& diagnosis, bool measure);

}  // namespace sinew::cli
