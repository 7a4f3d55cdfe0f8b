// Accelerators: the catalogue of data/hardware/accelerators.json, every number of which names its source.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sinew::plan {

struct Accelerator {
  std::string name;
  std::vector<std::string> aliases;
  std::string vendor;
  std::string family = "other";  // ampere, hopper, blackwell, tpu, ..: what the fitted efficiencies go by
  double year = 2024;            // of first volume shipments

  // Dense peaks, FLOP/s; 0 when the chip has no such arithmetic.
  double bf16 = 0, fp8 = 0, fp4 = 0, int8 = 0, fp32 = 0;
  // The best matrix product anyone measured, FLOP/s; 0 when not published.
  double bf16_achievable = 0, fp8_achievable = 0;

  double memory_bytes = 0;      // HBM
  double memory_bandwidth = 0;  // bytes/s
  int per_node = 8;             // accelerators in a host
  int scaleup_domain = 8;       // accelerators that reach each other over the fast fabric
  double scaleup = 0;           // bytes/s of one accelerator into it, one direction
  double network = 0;           // bytes/s of one accelerator outside it, one direction
  double host_link = 0;         // bytes/s to host memory
  double data_centre = 0;       // bytes/s between pods or slices; 0: as `network`
  bool torus = false;
  double power_watts = 0;  // of the package; 0 when not published
  double power_limit = 1;  // share of power_watts the operator allows
  double price_hour = 0;   // USD, the middle of the catalogue's range
  std::string note;
};

const std::vector<Accelerator>& accelerators();

// By name or alias, letters in either case. Throws UserError with the nearest name.
const Accelerator& find_accelerator(std::string_view name);
// The same, or null.
const Accelerator* accelerator_named(std::string_view name);

// Every published number of one accelerator with its source, one line each, for `sinew plan hardware`.
std::string describe_accelerator(std::string_view name);

}  // namespace sinew::plan
