// Dense against sparse at equal training FLOPs and equal tokens: many small runs of `sinew train`, one result
// file each, and what they say (docs/lean.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/lean_models.hpp"

namespace sinew {

struct LeanOptions {
  std::filesystem::path program;            // sinew
  std::filesystem::path out;                // data, runs, results, bench.json, lean.md, lean.svg
  std::vector<std::filesystem::path> data;  // text, or data sets made by `sinew data`
  std::vector<LeanKind> kinds{LeanKind::dense, LeanKind::fine, LeanKind::top2};
  std::vector<LeanSize> sizes{{64, 4}, {96, 4}, {128, 5}};
  std::vector<LeanSize> dense_sizes{{32, 4}, {160, 6}, {192, 8}};  // of `dense` alone, for the law
  std::int64_t seeds = 3;
  std::int64_t tokens = 1'000'000, sequence = 256, batch = 4, vocabulary = 2048;
  double lr = 4e-3;  // at hidden 64, for every kind: lr * sqrt(64 / hidden)
  std::string dtype = "bf16";
  int jobs = 2, threads = 1;
};

struct LeanRun {
  LeanKind kind = LeanKind::dense;
  LeanSize size;
  std::int64_t seed = 1;
  std::string name() const;  // "fine-128x5-s1"
};
// Seed after seed, so that a bench that was stopped has whole seeds; in each the large ones first, so that
// none runs alone at the end.
std::vector<LeanRun> lean_runs(const LeanOptions& options);

struct LeanResult {
  LeanRun run;
  LeanCounts counts;
  std::int64_t tokens = 0;
  double loss = 0, bits_per_byte = 0;  // on all held-out text, nats a token
  double seconds = 0;                  // of training, by the clock
  double compute() const { return counts.flops_per_token * static_cast<double>(tokens); }
};

// Settings shared by every result in options.out. Throws UserError when what lies there was made with others.
nlohmann::ordered_json lean_settings(const LeanOptions& options);

// Trains what has no result yet, `jobs` at a time, and returns every wanted result in the order of
// lean_runs(). A run that was stopped goes on from its checkpoint. On SIGINT or SIGTERM the runs save and
// Interrupted is thrown. Throws UserError on bad data, Error with the last line of its log when a run fails.
std::vector<LeanResult> lean_bench(const LeanOptions& options);
// Those that are finished.
std::vector<LeanResult> finished_lean_results(const LeanOptions& options);

}  // namespace sinew
