// Counted bytes are those of docs/communication.md.
#include <gtest/gtest.h>

#include <set>

#include "config/traffic_formulas.hpp"
#include "model/tiny_models.hpp"
#include "parallel/tiny_training.hpp"
#include "plan/trainer_state.hpp"

namespace sinew {
namespace {

using test::TinyRun;

// Elements of each flat run: by unit and spread.
std::map<std::pair<std::size_t, Spread>, std::int64_t> runs_of(const std::vector<PartSpec>& parts) {
  std::map<std::pair<std::size_t, Spread>, std::int64_t> runs;
  for (const auto& part : parts) {
    if (part.whole.buffer) continue;
    std::int64_t count = 1;
    for (const auto n : part.shape) count *= n;
    runs[{part.unit, part.spread}] += count;
  }
  return runs;
}

struct Expected {
  std::int64_t gather = 0, scatter = 0, replicas = 0;
};

void check_zero(std::int64_t zero, int depths) {
  TinyRun run{.config = depths > 0 ? test::tiny_deepseek_v3() : test::tiny_deepseek_v2()};
  run.steps = 1;
  run.micro = 4;
  const std::int64_t micro_batches = run.rows / run.micro;
  const Layout layout{.data = 2, .shard = 2, .zero = zero};
  test::run_ranks(4, [&](const std::shared_ptr<Endpoint>& endpoint) {
    const auto mesh = std::make_shared<Mesh>(endpoint, layout);
    test::train_tiny(run, mesh, [](const LanguageModel&, const Optimizer&) {});
    std::map<bool, Expected> want;  // of experts, of the rest
    for (const auto& [key, elements] : runs_of(part_specs(run.config, {}))) {
      auto& sum = want[key.second == Spread::expert];
      const auto piece = (elements + 1) / 2;
      const std::int64_t passes = 2 + (key.first == 0 ? depths : 0);  // unit 0 is the embedding
      sum.gather += all_gather_bytes(piece, 2, 4) * (zero == 3 ? passes * micro_batches : 1);
      sum.scatter += reduce_scatter_bytes(piece, 2, 4) * (zero == 1 ? 1 : micro_batches);
      sum.replicas += all_reduce_bytes(piece, 2, mesh->position(Axis::data), 4);
    }
    const auto& traffic = endpoint->traffic();
    EXPECT_EQ(traffic.of("shard", "all_gather").bytes(), want[false].gather);
    EXPECT_EQ(traffic.of("shard", "reduce_scatter").bytes(), want[false].scatter);
    EXPECT_EQ(traffic.of("data+context+tensor", "all_reduce").bytes(), want[false].replicas);
    EXPECT_EQ(traffic.of("expert_shard", "all_gather").bytes(), want[true].gather);
    EXPECT_EQ(traffic.of("expert_shard", "reduce_scatter").bytes(), want[true].scatter);
    EXPECT_EQ(traffic.of("expert_data", "all_reduce").bytes(), want[true].replicas);
  });
}

TEST(Traffic, OfShardedState) {
  for (const int depths : {0, 1})
    for (const std::int64_t zero : {1, 2, 3}) check_zero(zero, depths);
}

// Experts that the tokens of one process choose, by MoE layer, each [N, K].
std::vector<at::Tensor> choices_of(const TinyRun& run, int rank, int ranks) {
  LanguageModel model(run.config, run.dtype, at::kCPU, 7);
  model.set_balance(run.balance);
  const auto rows = run.rows / ranks;
  const auto batch = batch_tensors(test::tiny_batch(run, 0), rank * rows, rows, false, at::kCPU);
  ForwardTrace trace;
  const at::NoGradGuard no_grad;
  model.logits(batch.tokens, {}, nullptr, &trace);
  std::vector<at::Tensor> out;
  for (const auto& layer : trace.routing) out.push_back(layer.experts);
  return out;
}

// sent[r]: what goes from a process to r, of all its tokens: assignments, or with `once` tokens.
std::vector<std::int64_t> sent_of(const at::Tensor& experts, std::int64_t per_member, int members,
                                  bool once) {
  std::vector<std::int64_t> sent(static_cast<std::size_t>(members), 0);
  for (std::int64_t n = 0; n < experts.size(0); ++n) {
    std::set<std::int64_t> seen;
    for (std::int64_t k = 0; k < experts.size(1); ++k) {
      const auto to = experts[n][k].item<std::int64_t>() / per_member;
      if (!once || seen.insert(to).second) ++sent[static_cast<std::size_t>(to)];
    }
  }
  return sent;
}

struct Moved {
  std::int64_t out = 0, in = 0;  // rows to and from others
};
std::vector<Moved> moved(const TinyRun& run, int rank, int ranks, bool once) {
  std::vector<Moved> layers;
  for (int from = 0; from < ranks; ++from) {
    const auto choices = choices_of(run, from, ranks);
    layers.resize(choices.size());
    for (std::size_t l = 0; l < choices.size(); ++l) {
      const auto sent = sent_of(choices[l], run.config.moe.n_routed_experts / ranks, ranks, once);
      for (int to = 0; to < ranks; ++to) {
        if (to == from) continue;
        if (from == rank) layers[l].out += sent[static_cast<std::size_t>(to)];
        if (to == rank) layers[l].in += sent[static_cast<std::size_t>(to)];
      }
    }
  }
  return layers;
}

TEST(Traffic, OfExpertsDirectly) {
  TinyRun run{.config = test::tiny_deepseek_v2()};
  run.steps = 1;
  const auto& c = run.config;
  test::run_ranks(4, [&](const std::shared_ptr<Endpoint>& endpoint) {
    const auto mesh = std::make_shared<Mesh>(endpoint, Layout{.data = 4, .expert = 4});
    test::train_tiny(run, mesh, [](const LanguageModel&, const Optimizer&) {});
    std::int64_t want = 0, planned = 0;
    const std::int64_t row = c.hidden_size * 4;
    for (const auto& [out, in] : moved(run, endpoint->rank(), 4, false)) {
      want += 3 * 8 * c.moe.n_routed_experts / 4 + out * (row + 4) + in * row + in * (row + 4) + out * row;
      planned += plan::expert_traffic(c, mesh->layout(), out, in, false);
    }
    EXPECT_EQ(endpoint->traffic().of("expert", "all_to_all").bytes(), want);
    EXPECT_EQ(planned, want);
  });
}

// Eight nodes of one process, tokens to at most two of them, eight experts a token.
TinyRun eight_nodes() {
  TinyRun run{.config = test::tiny_deepseek_v2(), .sequence = 8, .dtype = at::kBFloat16};
  auto& c = run.config;
  c.hidden_size = 256;
  c.num_hidden_layers = 2;
  c.moe.n_routed_experts = 64;
  c.moe.num_experts_per_tok = 8;
  c.moe.n_group = 8;
  c.moe.topk_group = 2;
  c.initializer_range = 0.05;
  run.steps = 1;
  return run;
}

std::int64_t counted(const TinyRun& run, const Layout& layout, const char* group,
                     std::int64_t Traffic::*bytes, const std::function<std::int64_t(int)>& formula) {
  std::vector<std::int64_t> sums(8, 0);
  test::run_ranks(
      8,
      [&](const std::shared_ptr<Endpoint>& endpoint) {
        const auto mesh = std::make_shared<Mesh>(endpoint, layout);
        test::train_tiny(run, mesh, [](const LanguageModel&, const Optimizer&) {});
        const auto t = endpoint->traffic().of(group, "all_to_all");
        EXPECT_EQ(t.*bytes, formula(endpoint->rank())) << "rank " << endpoint->rank();
        EXPECT_EQ(t.*bytes, t.bytes());
        sums[static_cast<std::size_t>(endpoint->rank())] = t.*bytes;
      },
      1);
  std::int64_t sum = 0;
  for (const auto s : sums) sum += s;
  return sum;
}

TEST(Traffic, NodeLimitedFp8DispatchCutsBytesBetweenNodes) {
  const auto run = eight_nodes();
  const std::int64_t h = run.config.hidden_size, k = run.config.moe.num_experts_per_tok;
  const Layout plain{.data = 8, .expert = 8, .ranks_per_node = 1};
  auto limited = plain;
  limited.node_limit = 2;
  limited.dispatch = "fp8";
  const auto in_bf16 = counted(run, plain, "expert", &Traffic::inter_bytes, [&](int rank) {
    std::int64_t want = 0;
    for (const auto& [out, in] : moved(run, rank, 8, false))
      want += 7 * 8 * 8 + out * (2 * h + 4) + in * 2 * h + in * (2 * h + 4) + out * 2 * h;
    return want;
  });
  const auto in_fp8 = counted(run, limited, "expert_across_nodes", &Traffic::inter_bytes, [&](int rank) {
    std::int64_t want = 0;
    const std::int64_t narrow = h + 4 * ((h + 127) / 128);
    for (const auto& [out, in] : moved(run, rank, 8, true))
      want += 7 * 8 + out * (narrow + 8 * k) + in * 2 * h + in * (2 * h + 4 * k) + out * narrow;
    return want;
  });
  EXPECT_GE(static_cast<double>(in_bf16), 3.0 * static_cast<double>(in_fp8));
  RecordProperty("ratio", fmt::format("{:.2f}", static_cast<double>(in_bf16) / static_cast<double>(in_fp8)));
}

}  // namespace
}  // namespace sinew
