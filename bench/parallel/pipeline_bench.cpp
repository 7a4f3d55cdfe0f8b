// The idle share of a pipeline of four ranks, measured: stages that sleep instead of computing, so that ranks
// can be threads on any machine, with real messages between them. One JSON line a schedule.
//   pipeline_bench [micro-batches, default 16] [milliseconds a stage and pass, default 20]
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "base/spans.hpp"
#include "comm/communicator.hpp"
#include "ops/weight_work.hpp"
#include "parallel/pipeline.hpp"
#include "schedule/simulate.hpp"

namespace {

using namespace sinew;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void rest(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

struct Slow : torch::autograd::Function<Slow> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double milliseconds) {
    ctx->saved_data["time"] = milliseconds;
    rest(milliseconds);
    return x + 1;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const double time = ctx->saved_data["time"].toDouble();
    rest(time);
    if (auto* later = WeightWork::current())
      later->add([time] { rest(time); });
    else
      rest(time);
    return {grads[0], Tensor()};
  }
};

class SlowStage : public StageModule {
 public:
  SlowStage(const Schedule& schedule, int rank, double time)
      : schedule_(schedule), rank_(rank), time_(time) {}
  StageFlow empty_flow(int) const override { return {at::empty({64, 64})}; }
  StageResult forward(int chunk, int, const StageFlow& in) override {
    const auto y = Slow::apply(in.empty() ? at::zeros({64, 64}).requires_grad_() : in[0], time_);
    if (schedule_.stage_of(rank_, chunk) + 1 < schedule_.stages()) return {{y}, {}};
    return {{}, y.sum()};
  }

 private:
  const Schedule& schedule_;
  int rank_;
  double time_;
};

}  // namespace

int main(int argc, char** argv) {
  constexpr int kRanks = 4;
  const int micro_batches = argc > 1 ? std::atoi(argv[1]) : 16;
  const double milliseconds = argc > 2 ? std::atof(argv[2]) : 20;
  for (const auto kind : schedule_kinds()) {
    const auto schedule = make_schedule(kind, kRanks, micro_batches, 2);
    const double time = milliseconds / schedule.chunks;  // a rank's work is the same in all
    std::vector<double> busy(kRanks), makespan(kRanks);
    std::vector<int> held(kRanks);
    const auto store = c10::make_intrusive<c10d::HashStore>();
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        EndpointOptions options;
        options.rank = rank;
        options.size = kRanks;
        std::vector<int> ranks(kRanks);
        std::iota(ranks.begin(), ranks.end(), 0);
        const auto group = std::make_shared<Communicator>(connect(store, options), ranks, "pipeline", 1);
        SlowStage stage(schedule, rank, time);
        group->barrier();
        SpanLog log;
        const auto start = span_now();
        held[static_cast<std::size_t>(rank)] = run_pipeline(schedule, group, stage).peak_unfinished;
        makespan[static_cast<std::size_t>(rank)] = static_cast<double>(span_now() - start) * 1e-9;
        busy[static_cast<std::size_t>(rank)] = log.take_totals().of(SpanKind::compute);
        group->barrier();
      });
    }
    for (auto& thread : threads) thread.join();
    const double longest = *std::max_element(makespan.begin(), makespan.end());
    const double share = 1 - std::accumulate(busy.begin(), busy.end(), 0.0) / (kRanks * longest);
    fmt::print(
        R"({{"bench":"pipeline","schedule":"{}","ranks":{},"micro_batches":{},"stage_ms":{},"seconds":{:.4f},"bubble_share":{:.4f},"simulated":{:.4f},"peak_held":{}}})"
        "\n",
        schedule_name(kind), kRanks, micro_batches, time, longest, share,
        simulate(schedule, {StageCost{}}).bubble_share, *std::max_element(held.begin(), held.end()));
  }
}
