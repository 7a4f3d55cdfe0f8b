#include "train/report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "base/text.hpp"

namespace sinew {
namespace {

// Tags that TensorBoard groups by their first part.
constexpr std::array<std::pair<const char*, const char*>, 18> kTags{{
    {"loss", "loss/total"},
    {"cross_entropy", "loss/cross_entropy"},
    {"balance", "loss/balance"},
    {"z", "loss/z"},
    {"mtp", "loss/mtp"},
    {"val_loss", "validation/loss"},
    {"val_bits_per_byte", "validation/bits_per_byte"},
    {"lr", "optimizer/lr"},
    {"grad_norm", "optimizer/grad_norm"},
    {"batch", "optimizer/batch"},
    {"tokens_per_second", "throughput/tokens_per_second"},
    {"mfu", "throughput/mfu"},
    {"data_seconds", "throughput/data_seconds"},
    {"memory_bytes", "memory/bytes"},
    {"moe_max_violation", "moe/max_violation"},
    {"moe_entropy", "moe/entropy"},
    {"moe_dead_experts", "moe/dead_experts"},
    {"moe_dropped_share", "moe/dropped_share"},
}};

const char* tag_of(const std::string& key) {
  for (const auto& [name, tag] : kTags)
    if (key == name) return tag;
  return nullptr;
}

}  // namespace

std::string progress_line(const StepReport& r) {
  const std::string total = std::to_string(r.steps);
  std::string line = fmt::format(
      "step {:>{}}/{}  loss {:.4f}  lr {:.2e}  grad {:.2f}  {} tok/s  mfu {:.1f}%  {}", r.step, total.size(),
      total, r.loss.cross_entropy, r.lr, r.gradient_norm, human_count(r.tokens_per_second), 100 * r.mfu,
      human_bytes(static_cast<double>(r.memory_bytes)));
  if (!r.loss.loads.empty()) {
    const LoadStatistics load = load_statistics(r.loss.loads);
    line += fmt::format("  load max +{:.2f} entropy {:.3f} dead {} dropped {:.1f}%", load.max_violation,
                        load.entropy, load.dead_experts, 100 * load.dropped_share);
  }
  if (r.planned_seconds > 0)
    line += fmt::format("  {:.3g} s a step, planned {:.3g}", r.step_seconds, r.planned_seconds);
  line += fmt::format("  left {}", human_seconds(r.seconds_left));
  if (!r.skipped.empty()) line += "  SKIPPED: " + r.skipped;
  return line;
}

Record to_record(const StepReport& r) {
  Record record;
  record.add("step", r.step);
  record.add("loss", r.loss.total);
  record.add("cross_entropy", r.loss.cross_entropy);
  if (!r.loss.loads.empty()) record.add("balance", r.loss.balance);
  if (r.loss.z != 0) record.add("z", r.loss.z);
  if (r.loss.mtp != 0) record.add("mtp", r.loss.mtp);
  record.add("lr", r.lr);
  record.add("grad_norm", r.gradient_norm);
  record.add("batch", r.batch);
  record.add("tokens", static_cast<std::int64_t>(r.tokens));
  record.add("tokens_per_second", r.tokens_per_second);
  record.add("mfu", r.mfu);
  record.add("memory_bytes", static_cast<std::int64_t>(r.memory_bytes));
  record.add("step_seconds", r.step_seconds);
  record.add("data_seconds", r.data_seconds);
  record.add("compute_seconds", r.breakdown.of(SpanKind::compute));
  record.add("communication_seconds", r.breakdown.of(SpanKind::communication));
  record.add("bubble_seconds", r.breakdown.of(SpanKind::bubble));
  record.add("optimizer_seconds", r.breakdown.of(SpanKind::optimizer));
  if (r.planned_seconds > 0) record.add("planned_step_seconds", r.planned_seconds);
  if (!r.loss.loads.empty()) {
    const LoadStatistics load = load_statistics(r.loss.loads);
    record.add("moe_max_violation", load.max_violation);
    record.add("moe_entropy", load.entropy);
    record.add("moe_dead_experts", load.dead_experts);
    record.add("moe_dropped_share", load.dropped_share);
  }
  if (!r.skipped.empty()) record.add("skipped", r.skipped);
  return record;
}

void add_evaluation(Record& record, const Evaluation& evaluation) {
  record.add("val_loss", evaluation.loss);
  record.add("val_bits_per_byte", evaluation.bits_per_byte);
}

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

Reporter::Reporter(const RunDirectory& directory, std::int64_t step, bool tensorboard) {
  truncate_metrics(directory.metrics(), step);
  metrics_ = std::make_unique<MetricsFile>(directory.metrics());
  if (tensorboard) events_ = std::make_unique<EventFile>(directory.root(), step == 0 ? 0 : step + 1);
}

void Reporter::write(const Record& record) {
  metrics_->write(record);
  if (!events_) return;
  std::int64_t step = 0;
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto& [key, value] : record.fields) {
    if (key == "step") step = std::get<std::int64_t>(value);
    const char* const tag = tag_of(key);
    if (tag == nullptr) continue;
    if (const auto* whole = std::get_if<std::int64_t>(&value))
      scalars.emplace_back(tag, static_cast<double>(*whole));
    if (const auto* real = std::get_if<double>(&value)) scalars.emplace_back(tag, *real);
  }
  if (!scalars.empty()) events_->scalars(step, scalars);
}

void Reporter::sample(std::int64_t step, const std::string& text) {
  if (events_) events_->text(step, "sample", text);
}

}  // namespace sinew
