// Peak memory of a rank against the formulas of docs/communication.md.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "model/tiny_models.hpp"
#include "parallel/tiny_training.hpp"

namespace sinew {
namespace {

// Bytes of tensors that a rank's thread allocated and that still live, wherever they are freed.
struct Usage {
  std::atomic<std::int64_t> now{0}, peak{0};
  void add(std::int64_t bytes) {
    const auto sum = now += bytes;
    for (auto seen = peak.load(); sum > seen && !peak.compare_exchange_weak(seen, sum);) {
    }
  }
};
thread_local std::shared_ptr<Usage> usage;

class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* inner) : inner_(inner) {}
  // Libtorch 2 calls the first, 1.13 the second; of the two and of copy_data each overrides what there is.
  c10::DataPtr allocate(std::size_t bytes) { return counted(bytes); }
  c10::DataPtr allocate(std::size_t bytes) const { return counted(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }

 private:
  c10::DataPtr counted(std::size_t bytes) const {
    auto memory = inner_->allocate(bytes);
    if (!usage || bytes == 0) return memory;
    usage->add(static_cast<std::int64_t>(bytes));
    void* const address = memory.get();
    auto* const held = new Held{std::move(memory), usage, static_cast<std::int64_t>(bytes)};
    return {address, held, &release, at::kCPU};
  }
  struct Held {
    c10::DataPtr memory;
    std::shared_ptr<Usage> usage;
    std::int64_t bytes;
  };
  static void release(void* context) {
    auto* const held = static_cast<Held*>(context);
    held->usage->now -= held->bytes;
    delete held;
  }
  c10::Allocator* inner_;
};

// Weights of many layers, next to which activations are small.
test::TinyRun wide() {
  test::TinyRun run{.config = test::tiny_llama(), .steps = 2, .rows = 4, .sequence = 4, .micro = 4};
  run.config.hidden_size = 256;
  run.config.intermediate_size = 512;
  run.config.num_hidden_layers = 12;
  run.config.num_attention_heads = 8;
  run.config.num_key_value_heads = 8;
  run.config.head_dim = 32;
  run.config.initializer_range = 0.02;
  return run;
}

TEST(Memory, OfShardedStateFollowsTheFormula) {
  CountingAllocator counting(c10::GetAllocator(at::kCPU));
  c10::Allocator* const before = c10::GetAllocator(at::kCPU);
  c10::SetAllocator(at::kCPU, &counting, 255);
  const auto run = wide();
  std::map<std::size_t, std::int64_t> units;
  for (const auto& part : part_specs(run.config, {})) {
    std::int64_t count = 1;
    for (const auto n : part.shape) count *= n;
    units[part.unit] += count;
  }
  std::int64_t all = 0, largest = 0;
  for (const auto& [unit, elements] : units) {
    all += elements;
    largest = std::max(largest, elements);
  }
  constexpr int n = 4;
  std::vector<double> peaks;
  for (const std::int64_t zero : {1, 2, 3}) {
    std::vector<std::shared_ptr<Usage>> used(n);
    test::run_ranks(n, [&](const std::shared_ptr<Endpoint>& endpoint) {
      usage = std::make_shared<Usage>();
      used[static_cast<std::size_t>(endpoint->rank())] = usage;
      const auto mesh = std::make_shared<Mesh>(endpoint, Layout{.data = 1, .shard = n, .zero = zero});
      test::train_tiny(run, mesh, [](const LanguageModel&, const Optimizer&) {});
      usage.reset();
    });
    const double p = 4.0 * static_cast<double>(all), u = 4.0 * static_cast<double>(largest);
    const double state = 2 * p / n;  // the moments
    // zero 1: two reductions at a time receive n-1 pieces each and add them up.
    const double want = zero == 1   ? 2 * p + state + 2 * u
                        : zero == 2 ? p + p / n + state + 3 * u
                                    : 2 * p / n + state + 5 * u;
    for (const auto& rank : used)
      EXPECT_NEAR(static_cast<double>(rank->peak), want, 0.1 * want) << "zero " << zero;
    peaks.push_back(static_cast<double>(used[0]->peak));
  }
  c10::SetAllocator(at::kCPU, before, 255);
  EXPECT_LT(peaks[1], peaks[0]);
  EXPECT_LT(peaks[2], peaks[1]);
}

}  // namespace
}  // namespace sinew
