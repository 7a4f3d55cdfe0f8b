#include "kernels/tile_pipeline.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;

constexpr index_t kStride = 96;  // of results

// Numbers that begin with a line of memory, so that they can be stored past the caches.
template <class T>
class Lines {
 public:
  explicit Lines(index_t n) : bytes_(size(n) * sizeof(T)), memory_(bytes_ + 64) {}
  T* data() {
    auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
    return reinterpret_cast<T*>((at + 63) / 64 * 64);
  }
  bool operator==(Lines& other) { return std::memcmp(data(), other.data(), bytes_) == 0; }

 private:
  std::size_t bytes_;
  std::vector<std::byte> memory_;
};

// Products one after another and what is to be done with each: `beside` the next product, or before it.
template <class T>
struct Chain {
  const GemmKernels<T>& gemm;
  const VectorKernels<T>& vector;
  std::vector<T> a, panel;
  Lines<T> made, out, gate, up, act;
  Lines<float> sums, dot;
  std::vector<float> weight;
  std::vector<std::int32_t> places;
  index_t k;

  Chain(Isa isa, index_t depth, index_t products)
      : gemm(product_kernels<T>(isa)),
        vector(vector_kernels<T>(isa)),
        a(random_matrix<T>(kTile * std::max<index_t>(depth, 1), 1)),
        panel(random_matrix<T>(gemm.panel_size(depth), 2)),
        made(gemm.left_size(depth)),
        out(products * kTile * kStride),
        gate(products * kTile * kTile),
        up(products * kTile * kTile),
        act(products * kTile * kTile),
        sums(products * kTile * kStride),
        dot(products * kTile),
        weight(size(kTile)),
        places(size(kTile)),
        k(depth) {
    for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = 0.25F * static_cast<float>(i % 7) - 0.5F;
    std::iota(places.rbegin(), places.rend(), 0);  // the last row goes to the first place
  }

  TileWork<T> work(index_t i, index_t rows, index_t columns, const float* first, const float* second) {
    using Kind = typename TileWork<T>::Kind;
    const index_t tile = i * kTile * kTile, block = i * kTile * kStride;
    TileWork<T> w{.rows = rows, .columns = columns, .tile = first, .up_tile = second, .past = i % 2 == 0};
    if (i % 3 == 1) w.weight = weight.data();
    w.ld = kStride;
    if (i % 5 == 2) w.index = places.data();
    w.out = out.data() + block;
    w.sums = sums.data() + block;
    w.accumulate = i % 7 == 3;
    w.gate = gate.data() + tile;
    w.up = up.data() + tile;
    w.act = act.data() + tile;
    w.ld_act = kTile;
    w.dot = dot.data() + i * kTile;
    w.d_gate = out.data() + block;
    w.d_up = out.data() + block + kTile;
    w.ld_d = kStride;
    constexpr Kind kinds[] = {Kind::rows, Kind::sums, Kind::swiglu, Kind::swiglu_backward};
    w.kind = kinds[i % 4];
    return w;
  }

  void run(index_t products, index_t rows, index_t columns, bool beside) {
    Workspace::Frame frame(thread_workspace());
    TilePipeline<T> tiles(gemm, vector, frame);
    gemm.begin();
    const Left<T> left = gemm.left(a.data(), k, rows, k, made.data());
    const auto product = [&] { return tiles.multiply(left.a, left.lda, rows, panel.data(), k); };
    for (index_t i = 0; i < products; ++i) {
      tiles.ask(a.data(), k, i % 2 == 0 ? nullptr : places.data(), kTile, k, 3);
      const bool two = i % 4 == 2;
      const float *const first = product(), *const second = two ? product() : nullptr;
      tiles.then(work(i, rows, columns, first, second), two ? 2 : 1);
      if (!beside) tiles.finish();
    }
    tiles.finish();
    gemm.end();
    publish();
  }
};

template <class T>
void work_beside_products_is_the_same(index_t k, index_t rows, index_t columns) {
  const index_t products = 24;
  for (const Isa isa : available_isas()) {
    Chain<T> one(isa, padded_k<T>(k), products), other(isa, padded_k<T>(k), products);
    one.run(products, rows, columns, false);
    other.run(products, rows, columns, true);
    HOLDS(one.out == other.out && one.sums == other.sums);
    HOLDS(one.gate == other.gate && one.up == other.up && one.act == other.act && one.dot == other.dot);
  }
}

PROPERTY(TilePipeline, WorkBesideProductsGivesTheSameBits) {
  const auto k = test::draw(0, 300), rows = test::draw(1, 33), columns = test::draw(1, 33);
  work_beside_products_is_the_same<float>(k, rows, columns);
  work_beside_products_is_the_same<bf16>(k, rows, columns);
}

}  // namespace
}  // namespace sinew
