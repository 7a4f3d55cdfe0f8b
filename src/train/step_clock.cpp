#include "train/step_clock.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/files.hpp"

namespace sinew {
namespace {

// "pipeline 1, tensor 0": the place along the axes that have more than one.
std::string place(const Mesh* mesh) {
  if (mesh == nullptr) return {};
  std::string out;
  const auto add = [&](const char* name, Axis axis) {
    if (mesh->extent(axis) > 1)
      out += fmt::format("{}{} {}", out.empty() ? "" : ", ", name, mesh->position(axis));
  };
  add("pipeline", Axis::pipeline);
  add("data", Axis::data);
  add("shard", Axis::shard);
  add("context", Axis::context);
  add("tensor", Axis::tensor);
  return out;
}

}  // namespace

StepClock::StepClock(std::filesystem::path directory, std::int64_t trace_steps, Mesh* mesh)
    : directory_(std::move(directory)), trace_left_(trace_steps), mesh_(mesh) {
  if (trace_left_ == 0) return;
  make_directories(directory_);
  const int rank = mesh_ == nullptr ? 0 : mesh_->rank();
  trace_ =
      std::make_unique<TraceFile>(directory_ / fmt::format("rank-{:05}.jsonl", rank), rank, place(mesh_));
  log_.keep_events(true);
}

void StepClock::end_step() {
  const auto totals = log_.take_totals();
  for (std::size_t i = 0; i < totals.seconds.size(); ++i) sums_.seconds[i] += totals.seconds[i];
  ++steps_;
  if (trace_ == nullptr) return;
  trace_->write(log_.events());
  log_.clear_events();
  if (--trace_left_ > 0) return;
  log_.keep_events(false);
  trace_.reset();
}

SpanTotals StepClock::mean_step() {
  auto sum = at::tensor(at::ArrayRef<double>(sums_.seconds), at::kDouble);
  double count = static_cast<double>(std::max<std::int64_t>(1, steps_));
  if (mesh_ != nullptr) {
    const auto there = sum.to(mesh_->endpoint().options().device);
    mesh_->world()->all_reduce(there);
    sum = there.to(at::kCPU);
    count *= mesh_->size();
  }
  SpanTotals mean;
  for (std::size_t i = 0; i < mean.seconds.size(); ++i) mean.seconds[i] = sum.data_ptr<double>()[i] / count;
  sums_ = {};
  steps_ = 0;
  return mean;
}

}  // namespace sinew
