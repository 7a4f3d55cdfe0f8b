#include <regex>

#include "plan/row_reader.hpp"
#include "plan/runs.hpp"

namespace sinew::plan {

Software parse_software(const json& row, const json& o, const Accelerator& chip) {
  const std::string words =
      lower(text(row, "software") + " | " + text(row, "source") + " | " + text(row, "url"));
  const std::string all = words + " | " + lower(text(row, "name"));
  Software w;
  w.date = software_date(all, chip);
  const bool torch = has(all, "torchtitan") || has(all, "llm-foundry") || has(all, "automodel") ||
                     has(all, "fsdp") || truth(o, "fsdp");
  if (chip.family == "tpu" || has(all, "maxtext") || has(all, "jax") || has(all, "palm"))
    w.kind = Software::Kind::jax;
  else if (torch && !has(all, "megatron"))
    w.kind = Software::Kind::torch;
  w.fused_attention = w.date >= 2022.9;
  const std::string notes = lower(text(o, "notes")), overlap = lower(text(o, "overlap"));
  w.eager = notes == "eager" || has(notes, "eager;");
  w.deepspeed = w.date < 2022.9 && (has(all, "bigscience") || has(all, "deepspeed") || has(all, "mt-nlg") ||
                                    has(all, "turing") || has(all, "neox"));
  const bool nvidia_stack = w.kind == Software::Kind::megatron && w.date >= 2023.2;
  const bool sequence = truth(o, "sequence_parallel");
  w.overlap_tensor = (nvidia_stack && sequence && !has(words, "megascale") && !has(words, "nsdi")) ||
                     has(overlap, "tp,") || has(overlap, "async");
  if (has(overlap, "vanilla")) w.overlap_tensor = false;
  w.overlap_data = w.date >= 2022.9 || w.kind != Software::Kind::megatron || has(overlap, "dp");
  if (number(o, "zero_stage") >= 3) w.overlap_data = true;
  w.overlap_pipeline = w.date >= 2022.9;
  w.split_sends = !has(words, "bigscience");
  w.overlap_experts = has(overlap, "all-to-all");
  const std::string dispatch = lower(text(o, "moe_dispatch"));
  // Vendor containers dispatch through DeepEP or its like since the autumn of 2025.
  w.dedupe_dispatch = dispatch.empty() ? w.date >= 2025.65 : has(dispatch, "ep");
  w.cuda_graphs = has(overlap, "cuda graph");
  w.single_rail = number(o, "zero_stage") >= 3 && w.date < 2022.3 && w.kind == Software::Kind::megatron;
  if (w.deepspeed) w.overlap_data = false;
  if (given(part(row, "measured"), "accel_hours_total") ||
      text(part(row, "measured"), "primary_metric") == "accel_hours_per_T_tokens")
    w.goodput = 0.9;  // Llama 3 reports over 90 %
  const std::string precision = lower(text(o, "precision"));
  w.gradient_bytes = has(precision, "fp32 grad") ? 4 : 2;
  return w;
}

double software_date(const std::string& all, const Accelerator& chip) {
  std::smatch found;
  if (std::regex_search(
          all, found,
          std::regex("(?:nemo|dgxc|ngc|recipes|container|megatron-bridge)[^0-9|]{0,24}(2[2-9])\\.(\\d\\d)")))
    return 2000 + std::stod(found[1]) + (std::stod(found[2]) - 0.5) / 12;
  if (std::regex_search(all, found, std::regex("mlperf[^|]{0,40}v(\\d)\\.(\\d)")))
    return 2020 + std::stod(found[1]) + (found[2] == "0" ? 0.4 : 0.85);
  if (std::regex_search(all, found, std::regex("\\b(20[12]\\d)-(\\d\\d)\\b")))
    return std::stod(found[1]) + (std::stod(found[2]) - 0.5) / 12;
  constexpr std::pair<const char*, double> names[] = {
      {"sc21", 2021.2},        {"bigscience", 2022.1},  {"megatron-turing", 2021.8}, {"opt paper", 2022.0},
      {"gpt-neox", 2022.1},    {"nsdi24", 2023.6},      {"megascale", 2023.6},       {"r0.8", 2024.6},
      {"mcore-r0", 2024.6},    {"v0.9", 2024.9},        {"model zoo", 2025.5},       {"modelzoo", 2025.5},
      {"automodel", 2025.8},   {"llm-foundry", 2023.8}, {"maxtext", 2023.9},         {"palm", 2022.0},
      {"llama 3", 2024.2},     {"llama 2", 2023.4},     {"llama paper", 2022.95},    {"falcon", 2023.2},
      {"deepseek-v2", 2024.2}, {"deepseek-v3", 2024.8}, {"nemotron-4", 2024.1},      {"pangu", 2025.2},
      {"deepspeed", 2022.0},   {"torchtitan", 2024.9}};
  for (const auto& [name, date] : names)
    if (has(all, name)) return date;
  if (std::regex_search(all, found, std::regex("\\b(2[0-9])(0[1-9]|1[0-2])\\.\\d{5}\\b")))
    return 2000 + std::stod(found[1]) + (std::stod(found[2]) - 0.5) / 12;
  if (std::regex_search(all, found, std::regex("\\b(20[12]\\d)\\b"))) return std::stod(found[1]) + 0.5;
  return chip.year + 1.5;
}

}  // namespace sinew::plan
