// Fitting the constants to published runs, and the errors that remain.
#pragma once

#include <string>
#include <vector>

#include "plan/runs.hpp"

namespace sinew::plan {

// Minimises the sum over runs of a robust loss of log(predicted / measured) plus the priors' cost. Runs known
// only by a quoted TFLOP/s weigh half. `left_out`: rows (by index) not used.
Constants fit_constants(const std::vector<PublishedRun>& runs, const Constants& start, int rounds,
                        const std::vector<bool>& left_out = {});

struct RowError {
  double predicted = 0, measured = 0;  // s a step
  double error = 0;                    // predicted / measured - 1
  bool counted = false;                // by step time or tokens/s
};
std::vector<RowError> errors(const std::vector<PublishedRun>& runs, const Constants& constants);

struct Summary {
  int rows = 0;
  double median = 0, ninth_decile = 0, mean = 0, within_quarter = 0,
         bias = 0;  // of |error|; bias: mean of log ratio
};
Summary summarise(const std::vector<RowError>& rows);

// Spearman's rank correlation of predicted and measured.
double rank_correlation(const std::vector<RowError>& rows);

// Each run predicted by constants fitted without any run of its source.
std::vector<RowError> leave_one_source_out(const std::vector<PublishedRun>& runs, const Constants& fitted);

}  // namespace sinew::plan
