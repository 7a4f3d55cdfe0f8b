// What a run says of itself: the line people read, the record in metrics.jsonl, TensorBoard scalars.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/spans.hpp"
#include "model/balance.hpp"
#include "train/batch.hpp"
#include "train/evaluate.hpp"
#include "train/metrics.hpp"
#include "train/run_directory.hpp"
#include "train/tensorboard.hpp"

namespace sinew {

struct StepReport {
  std::int64_t step = 0, steps = 0;
  BatchLoss loss;
  double lr = 0, gradient_norm = 0;
  std::uint64_t tokens = 0;  // of the whole run so far
  std::int64_t batch = 0;
  double tokens_per_second = 0, mfu = 0;      // since the last line
  double step_seconds = 0, data_seconds = 0;  // a step, since the last line; of these, waiting for data
  double planned_seconds = 0;                 // what `sinew plan --here` says of a step; 0: not asked
  SpanTotals breakdown;                       // seconds of a step by kind, of the mean process
  double seconds_left = 0;
  std::uint64_t memory_bytes = 0;
  std::string skipped;  // why, or ""
};

std::string progress_line(const StepReport& report);
Record to_record(const StepReport& report);
void add_evaluation(Record& record, const Evaluation& evaluation);

std::uint64_t resident_bytes();  // of this process, now

// metrics.jsonl and the event file of one run directory.
class Reporter {
 public:
  // Drops what the files say of steps after `step`.
  Reporter(const RunDirectory& directory, std::int64_t step, bool tensorboard);
  void write(const Record& record);
  void sample(std::int64_t step, const std::string& text);

 private:
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<EventFile> events_;
};

}  // namespace sinew
