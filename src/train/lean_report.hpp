// What the runs of `sinew bench lean` say: tables, JSON and a picture.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/lean_bench.hpp"
#include "train/lean_fit.hpp"

namespace sinew {

// Mean, smallest and largest over seeds.
struct LeanSpread {
  double mean = 0, least = 0, most = 0;
  std::size_t seeds = 0;
};

// The runs of one kind and size.
struct LeanCell {
  LeanKind kind = LeanKind::dense;
  LeanSize size;
  LeanCounts counts;
  double compute = 0;  // FLOPs of one run
  LeanSpread loss{}, bits_per_byte{};
};

// How many times the compute of a sparse run dense networks need for its loss: by the law through all dense
// runs, and between the means of neighbouring dense sizes (seeds 0: the loss lies beyond them).
struct LeanEqual {
  LeanKind kind = LeanKind::fine;
  LeanSize size;
  LeanSpread by_law;  // the means are geometric
  LeanSpread between;
};

struct LeanReport {
  std::vector<LeanCell> cells{};  // kinds in their order, small sizes first
  std::optional<PowerLaw> law{};  // of all dense runs, where they are of two sizes or more
  std::vector<LeanEqual> equal{};
};
LeanReport lean_report(const std::vector<LeanResult>& results);

std::string lean_markdown(const LeanReport& report);
std::string lean_svg(const LeanReport& report, const std::vector<LeanResult>& results);
nlohmann::ordered_json lean_json(const LeanOptions& options, const LeanReport& report,
                                 const std::vector<LeanResult>& results);

}  // namespace sinew
