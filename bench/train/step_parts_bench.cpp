// The parts of a training step of a preset of `sinew bench train` (M), one by one: milliseconds of a call and
// GFLOP/s. Usage: step_parts_bench [name prefix] [rounds] [preset] [cold: operands come from memory]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/index.hpp"
#include "base/random.hpp"
#include "base/threads.hpp"
#include "kernels/attention.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/experts.hpp"
#include "kernels/matmul.hpp"
#include "kernels/norm.hpp"
#include "kernels/optimizer.hpp"
#include "ops/openmp_threads.hpp"
#include "train/step_bench.hpp"

namespace sinew {
namespace {

// Memory as libtorch aligns it.
template <class T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U>
  Aligned(const Aligned<U>&) {}
  T* allocate(std::size_t n) {
    return static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64));
  }
  void deallocate(T* p, std::size_t) { std::free(p); }
  bool operator==(const Aligned&) const { return true; }
};
template <class T>
using Buffer = std::vector<T, Aligned<T>>;

std::string_view wanted;
int rounds = 10;
bool cold = false;

// Leaves other data in all caches, as the operations between two calls of one do.
void sweep_caches() {
  static std::vector<char> other(std::size_t{256} << 20);
  parallel_for(other.size(), 1 << 20, [](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; i += 64) ++other[i];
  });
}

void report(std::string_view name, double flops, const std::function<void()>& body) {
  if (!name.starts_with(wanted)) return;
  std::vector<double> times;
  for (int i = -2; i < rounds; ++i) {
    if (cold) sweep_caches();
    const double time = seconds_of(body);
    if (i >= 0) times.push_back(time);
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  fmt::print("{{\"bench\": \"{}\", \"ms_median\": {:.3f}, \"ms_best\": {:.3f}, \"gflops\": {:.0f}}}\n", name,
             1e3 * median, 1e3 * times[0], flops / median / 1e9);
}

template <class T>
Buffer<T> normal(index_t n, float deviation, std::string_view key) {
  Buffer<float> x(size(n));
  const Random random(1, key);
  parallel_for(x.size(), 1 << 16, [&](std::size_t b, std::size_t e) {
    random.fill_normal(x.data() + b, b, e - b, 0, deviation);
  });
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    Buffer<T> y(x.size());
    std::transform(x.begin(), x.end(), y.begin(), [](float v) { return to_bf16(v); });
    return y;
  }
}

BenchPreset preset = bench_preset("M");

index_t all_tokens() { return preset.rows * preset.tokens; }

template <class T>
struct ExpertLayer {
  Buffer<T> gate, up, down;
  Buffer<float> d_gate, d_up, d_down;
  std::vector<const T*> weights;
  std::vector<float*> gradients;
  ExpertMatrices<T> matrices;
  ExpertGradients to;

  ExpertLayer(index_t experts, index_t width)
      : gate(normal<T>(experts * width * preset.model.hidden_size, 0.02F, "gate")),
        up(normal<T>(experts * width * preset.model.hidden_size, 0.02F, "up")),
        down(normal<T>(experts * width * preset.model.hidden_size, 0.02F, "down")),
        d_gate(gate.size()),
        d_up(gate.size()),
        d_down(gate.size()) {
    const auto one = size(width * preset.model.hidden_size), n = size(experts);
    for (auto* w : {&gate, &up, &down})
      for (std::size_t e = 0; e < n; ++e) weights.push_back(w->data() + e * one);
    for (auto* g : {&d_gate, &d_up, &d_down})
      for (std::size_t e = 0; e < n; ++e) gradients.push_back(g->data() + e * one);
    matrices = {preset.model.hidden_size, width, weights.data(), weights.data() + n, weights.data() + 2 * n};
    to = {gradients.data(), gradients.data() + n, gradients.data() + 2 * n, true};
  }
};

template <class T>
void experts(std::string_view name, index_t count, index_t width, index_t top_k, bool accumulate) {
  if (!name.starts_with(wanted.substr(0, name.size()))) return;
  ExpertLayer<T> layer(count, width);
  layer.to.accumulate = accumulate;
  ExpertRows rows;
  std::vector<std::int64_t> chosen;
  const Random random(1, "routing");
  for (index_t t = 0; t < all_tokens(); ++t) {
    const auto first = chosen.size();
    for (std::uint64_t i = 0; chosen.size() < first + size(top_k); ++i) {
      const auto e = static_cast<std::int64_t>(random.bits(size(t) * 1000 + i) % size(count));
      if (std::find(chosen.begin() + static_cast<std::ptrdiff_t>(first), chosen.end(), e) == chosen.end())
        chosen.push_back(e);
    }
  }
  sort_by_expert(chosen.data(), all_tokens(), top_k, count, rows);
  const auto x = normal<T>(all_tokens() * preset.model.hidden_size, 1, "x"),
             dy = normal<T>(all_tokens() * preset.model.hidden_size, 1, "dy");
  Buffer<T> y(x.size()), dx(x.size()), saved(size(expert_saved_size(layer.matrices, all_tokens() * top_k)));
  const std::vector<float> weight(size(all_tokens() * top_k), 0.1F);
  std::vector<float> d_weight(weight.size());
  const float* const w = top_k > 1 ? weight.data() : nullptr;
  const double flops = 6.0 * static_cast<double>(all_tokens() * top_k * preset.model.hidden_size * width);
  report(fmt::format("{}.forward", name), flops, [&] {
    experts_forward<T>(active_isa(), layer.matrices, rows, x.data(), w, nullptr, y.data(), saved.data());
  });
  report(fmt::format("{}.backward", name), 2 * flops, [&] {
    experts_backward<T>(active_isa(), layer.matrices, rows, x.data(), dy.data(), w, saved.data(), nullptr,
                        dx.data(), w != nullptr ? d_weight.data() : nullptr, &layer.to);
  });
  report(fmt::format("{}.backward_dx", name), flops, [&] {
    experts_backward<T>(active_isa(), layer.matrices, rows, x.data(), dy.data(), w, saved.data(), nullptr,
                        dx.data(), w != nullptr ? d_weight.data() : nullptr, nullptr);
  });
}

template <class T>
void linear(std::string_view name, index_t out, index_t in) {
  const auto x = normal<T>(all_tokens() * in, 1, "x"), w = normal<T>(out * in, 0.02F, "w"),
             dy = normal<T>(all_tokens() * out, 1, "dy");
  Buffer<T> y(dy.size()), dx(x.size());
  Buffer<float> dw(w.size());
  const double flops = 2.0 * static_cast<double>(all_tokens() * out * in);
  report(fmt::format("{}.forward", name), flops, [&] {
    matmul(active_isa(), Matmul<T>{.m = all_tokens(),
                                   .n = out,
                                   .k = in,
                                   .a = x.data(),
                                   .lda = in,
                                   .b = w.data(),
                                   .ldb = in,
                                   .b_transposed = true,
                                   .c_narrow = y.data(),
                                   .ldc = out});
  });
  report(fmt::format("{}.dx", name), flops, [&] {
    matmul(active_isa(), Matmul<T>{.m = all_tokens(),
                                   .n = in,
                                   .k = out,
                                   .a = dy.data(),
                                   .lda = out,
                                   .b = w.data(),
                                   .ldb = in,
                                   .c_narrow = dx.data(),
                                   .ldc = in});
  });
  report(fmt::format("{}.dw", name), flops, [&] {
    matmul(active_isa(), Matmul<T>{.m = out,
                                   .n = in,
                                   .k = all_tokens(),
                                   .a = dy.data(),
                                   .lda = out,
                                   .a_transposed = true,
                                   .b = x.data(),
                                   .ldb = in,
                                   .c = dw.data(),
                                   .ldc = in,
                                   .accumulate = true});
  });
}

template <class T>
void attention(std::string_view name) {
  const ModelConfig& c = preset.model;
  const index_t rows = preset.rows, tokens = preset.tokens, heads = c.num_attention_heads,
                plain = c.qk_nope_head_dim, rotated = c.qk_rope_head_dim, value = c.v_head_dim,
                key = plain + rotated;
  const index_t n = rows * tokens;
  const auto q = normal<T>(n * heads * key, 1, "q"), kv = normal<T>(n * heads * (plain + value), 1, "kv"),
             pe = normal<T>(n * rotated, 1, "pe"), dy = normal<T>(n * heads * value, 1, "dy");
  Buffer<T> y(dy.size()), dq(q.size()), dkv(kv.size()), dpe(pe.size());
  Buffer<float> lse(size(n * heads)), angle(size(tokens * rotated / 2), 0.7F);
  const AttentionSizes s{.rows = rows,
                         .tokens = tokens,
                         .heads = heads,
                         .kv_heads = heads,
                         .plain = plain,
                         .rotated = rotated,
                         .value = value,
                         .scale = 0.125,
                         .cos = angle.data(),
                         .sin = angle.data(),
                         .interleaved = true,
                         .documents = nullptr};
  const AttentionInputs<T> in{{q.data(), heads * key, key},
                              {kv.data(), heads * (plain + value), plain + value},
                              {pe.data(), rotated, 0},
                              {kv.data() + plain, heads * (plain + value), plain + value}};
  const AttentionGradients<T> g{{dq.data(), heads * key, key},
                                {dkv.data(), heads * (plain + value), plain + value},
                                {dpe.data(), rotated, 0},
                                {dkv.data() + plain, heads * (plain + value), plain + value}};
  const double flops = static_cast<double>(n * heads * tokens * (key + value));
  report(fmt::format("{}.forward", name), flops, [&] {
    attention_forward<T>(active_isa(), s, in, {y.data(), heads * value, value}, lse.data());
  });
  report(fmt::format("{}.backward", name), 2 * flops, [&] {
    attention_backward<T>(active_isa(), s, in, {y.data(), heads * value, value},
                          {dy.data(), heads * value, value}, lse.data(), g);
  });
}

template <class T>
void head(std::string_view name, index_t vocabulary) {
  const auto x = normal<T>(all_tokens() * preset.model.hidden_size, 1, "x"),
             w = normal<T>(vocabulary * preset.model.hidden_size, 0.02F, "w");
  std::vector<std::int64_t> targets(size(all_tokens()));
  for (index_t t = 0; t < all_tokens(); ++t) targets[size(t)] = t * 37 % vocabulary;
  Buffer<T> dx(x.size());
  Buffer<float> dw(w.size());
  report(name, 6.0 * static_cast<double>(all_tokens() * preset.model.hidden_size * vocabulary), [&] {
    cross_entropy<T>(active_isa(), all_tokens(), preset.model.hidden_size, vocabulary, x.data(), w.data(),
                     targets.data(), dx.data(), dw.data());
  });
}

void optimizer(std::string_view name, index_t n) {
  Buffer<float> w(size(n)), m(size(n)), v(size(n)), g(size(n));
  Buffer<bf16> narrow(size(n));
  const AdamWFactors f{.beta1 = 0.9F,
                       .one_less_beta1 = 0.1F,
                       .beta2 = 0.95F,
                       .one_less_beta2 = 0.05F,
                       .eps = 1e-8F,
                       .step_size = 1e-3F,
                       .root_correction = 1,
                       .gradient_scale = 1,
                       .keep = 1};
  const AdamWSpan span{.w = w.data(),
                       .m = m.data(),
                       .v = v.data(),
                       .gradient = g.data(),
                       .narrow = narrow.data(),
                       .n = n,
                       .factors = f};
  report(fmt::format("{}.norm", name), static_cast<double>(4 * n), [&] {
    sum_of_squares(active_isa(), {&span, 1});
  });
  report(fmt::format("{}.adamw", name), static_cast<double>(34 * n), [&] {
    adamw(active_isa(), {&span, 1});
  });
}

template <class T>
void all(std::string_view type) {
  const auto name = [&](std::string_view what) { return fmt::format("{}.{}", type, what); };
  const ModelConfig& c = preset.model;
  const auto& moe = c.moe;
  const index_t width = moe.moe_intermediate_size, heads = c.num_attention_heads;
  experts<T>(name("experts"), moe.n_routed_experts, width, moe.num_experts_per_tok, true);
  experts<T>(name("overwrite"), moe.n_routed_experts, width, moe.num_experts_per_tok, false);
  experts<T>(name("shared"), 1, moe.n_shared_experts * width, 1, true);
  experts<T>(name("dense"), 1, c.intermediate_size, 1, true);
  linear<T>(name("q"), heads * (c.qk_nope_head_dim + c.qk_rope_head_dim), c.hidden_size);
  linear<T>(name("kv_b"), heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank);
  attention<T>(name("attention"));
  head<T>(name("head"), c.vocab_size);
}

}  // namespace
}  // namespace sinew

int main(int argc, char** argv) {
  using namespace sinew;
  set_loop_runner(run_on_openmp);
  if (argc > 1) wanted = argv[1];
  if (argc > 2) rounds = std::max(1, std::atoi(argv[2]));
  try {
    if (argc > 3) preset = bench_preset(argv[3]);
  } catch (const UserError& e) {
    fmt::print(stderr, "step_parts_bench: {}\n", e.what());
    return 2;
  }
  cold = argc > 4 && std::string_view(argv[4]) == "cold";
  all<bf16>("bf16");
  all<float>("fp32");
  optimizer("optimizer", index_t{1} << 26);
  return 0;
}
