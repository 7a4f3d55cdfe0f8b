#include "kernels/matmul.hpp"

#include <algorithm>
#include <cstring>

#include "base/loop_threads.hpp"
#include "base/threads.hpp"
#include "kernels/tile_pipeline.hpp"

namespace sinew {
namespace {

constexpr index_t kRows = 256;   // of A a task goes over
constexpr index_t kPanels = 16;  // of B a task goes over: 512 KiB of bf16, held in the second-level cache

// A product in progress.
template <class T>
struct Product {
  const GemmKernels<T>& gemm;
  const VectorKernels<T>& vector;
  const Matmul<T>& args;
  const T* packed_b = nullptr;  // piece by piece, panel by panel
  float* sums = nullptr;        // [round_up(m), round_up(n)] where tasks cannot keep the sums themselves
  bool past = false;            // a c_narrow that goes past the caches

  // Of k. Results that are stored once and narrow want few pieces, sums that grow in place small ones.
  index_t piece_depth() const { return args.a_transposed ? gemm.depth : kDepth; }
  index_t pieces() const { return args.k == 0 ? 1 : (args.k + piece_depth() - 1) / piece_depth(); }
  index_t depth(index_t piece) const { return std::min(piece_depth(), args.k - piece * piece_depth()); }
  index_t panels() const { return round_up(args.n, kTile) / kTile; }
  // Of a task: fewer of wider rows.
  index_t most_panels() const {
    return std::min(kPanels, kPanels * kTile / gemm.row * (kDepth / piece_depth()));
  }
  index_t most_depth() const { return std::min(piece_depth(), args.k); }
  const T* panel(index_t piece, index_t i) const {
    return packed_b + piece * panels() * gemm.panel_size(piece_depth()) + i * gemm.panel_size(depth(piece));
  }
};

// Rows [row, row + rows) (<= 32) as the block wants them: whole tiles of 16, k padded.
template <class T>
const T* a_block(const Product<T>& p, index_t piece, index_t row, index_t rows, T* copy, index_t& lda) {
  const index_t k = p.depth(piece);
  const T* const source = p.args.a + row * p.args.lda + piece * p.piece_depth();
  lda = p.args.lda;
  if (rows % 16 == 0 && k % kStep<T> == 0) return source;
  const index_t wide = padded_k<T>(k);
  std::memset(static_cast<void*>(copy), 0, static_cast<std::size_t>(round_up(rows, 16) * wide) * sizeof(T));
  for (index_t r = 0; r < rows && k > 0; ++r)  // without columns there may be no `a` at all
    std::memcpy(copy + r * wide, source + r * lda, static_cast<std::size_t>(k) * sizeof(T));
  lda = wide;
  return copy;
}

// Where the sums of a task's blocks grow: `c` itself, the product's sums, or the task's own.
struct Sums {
  float* data;
  index_t ld;
};

template <class T>
void one_block(const Product<T>& p, index_t piece, index_t row, index_t panel, const Left<T>& left,
               const T* b, const Sums& sums, TilePipeline<T>& tiles) {
  const Matmul<T>& args = p.args;
  const bool second = args.split > 0 && row >= args.split, grows = piece > 0 || args.accumulate;
  const index_t row_out = second ? row - args.split : row, m = args.split > 0 ? args.valid : args.m;
  const index_t rows = std::min(kTile, m - row_out), column = panel * kTile;
  if (rows <= 0) return;
  const index_t columns = std::min(kTile, args.n - column), k = round_up(p.depth(piece), p.gemm.block_step);
  if (args.c != nullptr) {
    float* const c = (second ? args.c_second : args.c) + row_out * args.ldc + column;
    if (rows % 16 == 0 && columns == kTile)
      return tiles.multiply(left.a, left.lda, rows, b, k, c, args.ldc, grows);
    return tiles.then({.kind = TileWork<T>::Kind::sums,
                       .rows = rows,
                       .columns = columns,
                       .tile = tiles.multiply(left.a, left.lda, rows, b, k),
                       .accumulate = grows,
                       .sums = c,
                       .ld = args.ldc});
  }
  const float* tile = sums.data;
  if (tile == nullptr)
    tile = tiles.multiply(left.a, left.lda, rows, b, k);
  else
    tiles.multiply(left.a, left.lda, rows, b, k, sums.data, sums.ld, piece > 0);
  if (piece + 1 == p.pieces())
    tiles.then({.kind = TileWork<T>::Kind::rows,
                .rows = rows,
                .columns = columns,
                .tile = tile,
                .ld_tile = sums.data != nullptr ? sums.ld : kTile,
                .past = p.past,
                .accumulate = args.accumulate,
                .out = args.c_narrow + row * args.ldc + column,
                .ld = args.ldc});
}

template <class T>
void task(const Product<T>& p, index_t row0, index_t panel0) {
  const index_t row1 = std::min(row0 + kRows, p.args.m),
                panel1 = std::min(panel0 + p.most_panels(), p.panels());
  Workspace::Frame frame(thread_workspace());
  T* const copy = frame.take<T>(static_cast<std::size_t>(kTile * padded_k<T>(p.most_depth())));
  T* const made = frame.take<T>(static_cast<std::size_t>(p.gemm.left_size(p.most_depth())));
  float* const own = p.args.c == nullptr && p.pieces() > 1
                         ? frame.take<float>(static_cast<std::size_t>(kRows * kPanels * kTile))
                         : nullptr;
  TilePipeline<T> tiles(p.gemm, p.vector, frame);
  p.gemm.begin();
  for (index_t piece = 0; piece < p.pieces(); ++piece)
    for (index_t row = row0; row < row1; row += kTile) {
      index_t lda = 0;
      const index_t rows = std::min(kTile, row1 - row);
      const T* const a = a_block(p, piece, row, rows, copy, lda);
      const Left<T> left = p.gemm.left(a, lda, rows, p.depth(piece), made);
      const index_t next = row + kTile;
      tiles.ask(p.args.a + next * p.args.lda + piece * p.piece_depth(), p.args.lda, nullptr,
                std::clamp(row1 - next, index_t{0}, kTile), p.depth(piece), panel1 - panel0);
      for (index_t panel = panel0; panel < panel1; ++panel) {
        const Sums sums{
            own != nullptr ? own + (row - row0) * kPanels * kTile + (panel - panel0) * kTile : nullptr,
            kPanels * kTile};
        one_block(p, piece, row, panel, left, p.panel(piece, panel), sums, tiles);
      }
    }
  tiles.finish();
  p.gemm.end();
  if (p.past) publish();
}

// Rows [from, to) of a panel of one piece of k; `from` a multiple of kTile.
template <class T>
void pack_panel(const Product<T>& p, index_t piece, index_t panel, index_t from, index_t to, T* out) {
  const Matmul<T>& args = p.args;
  const index_t column = panel * kTile, columns = std::min(kTile, args.n - column);
  const index_t k0 = piece * p.piece_depth() + from, k = to - from;
  out += from * p.gemm.row;
  if (args.b_transposed)
    p.gemm.pack_b_transposed(args.b + column * args.ldb + k0, args.ldb, columns, k, out);
  else if (args.b_rows != nullptr)
    p.gemm.pack_b(args.b + column, args.ldb, args.b_rows + k0, k, columns, out);
  else
    p.gemm.pack_b(args.b + k0 * args.ldb + column, args.ldb, nullptr, k, columns, out);
}

// Columns from `row` on of the stored `a`, [k, m], of one piece of k.
template <class T>
struct Strip {
  const T* base;
  const std::int32_t* rows;  // as Matmul::a_rows
  index_t columns;

  Strip(const Matmul<T>& args, index_t k0, index_t row)
      : base(args.a + (args.a_rows != nullptr ? 0 : k0 * args.lda) + row),
        rows(args.a_rows != nullptr ? args.a_rows + k0 : nullptr),
        columns(std::min(kTile, args.m - row)) {}
};

template <class T>
void pack_rows(const Product<T>& p, index_t piece, index_t row, T* out) {
  const Strip<T> strip(p.args, piece * p.piece_depth(), row);
  const index_t k = p.depth(piece);
  p.gemm.pack_a_transposed(strip.base, p.args.lda, strip.rows, k, strip.columns, out, padded_k<T>(k));
}

// Asks for what pack_rows() will read, beside the next `products` products.
template <class T>
void ask_for_strip(const Product<T>& p, index_t piece, index_t row, index_t products,
                   TilePipeline<T>& tiles) {
  if (products < 8) return;  // too few for so many lines
  const Strip<T> strip(p.args, piece * p.piece_depth(), row);
  tiles.ask(strip.base, p.args.lda, strip.rows, p.depth(piece), strip.columns, products);
}

template <class Body>
void each(index_t count, const Body& body) {
  parallel_for(static_cast<std::size_t>(count), 1, [&](std::size_t begin, std::size_t end) {
    for (auto i = static_cast<index_t>(begin); i < static_cast<index_t>(end); ++i) body(i);
  });
}

template <class T>
void multiply(const Product<T>& p) {
  const index_t row_tasks = (p.args.m + kRows - 1) / kRows,
                panel_tasks = (p.panels() + p.most_panels() - 1) / p.most_panels();
  // A group of panels stays in the cache while the rows go by.
  each(row_tasks * panel_tasks,
       [&](index_t i) { task(p, i % row_tasks * kRows, i / row_tasks * p.most_panels()); });
}

// All panels.
template <class T>
void pack(const Product<T>& p, T* packed_b) {
  const index_t panels = p.panels();
  each(p.pieces() * panels, [&](index_t i) {
    const index_t piece = i / panels, panel = i % panels;
    pack_panel(p, piece, panel, 0, p.depth(piece), packed_b + (p.panel(piece, panel) - p.packed_b));
  });
}

// Strips and panels of C, [begin, end) each.
struct Part {
  index_t strip0, strip1, panel0, panel1;
};

// A strip of A is packed right before its use and stays in the first-level cache while the panels of one
// piece of k go by. Those, and the part of C, stay in the second. `packed_b`: memory for one piece's panels,
// which are then packed here, or null: they are in p.packed_b.
template <class T>
void strips(const Product<T>& p, const Part& part, T* a, T* made, T* packed_b, TilePipeline<T>& tiles) {
  const Sums sums{p.sums, round_up(p.args.n, kTile)};
  for (index_t piece = 0; piece < p.pieces(); ++piece) {
    const index_t depth = p.depth(piece), panel_elements = p.gemm.panel_size(depth);
    // A few rows at a time, so that memory is read as it lies.
    for (index_t k = 0; k < depth && packed_b != nullptr; k += kTile)
      for (index_t panel = part.panel0; panel < part.panel1; ++panel)
        pack_panel(p, piece, panel, k, std::min(depth, k + kTile),
                   packed_b + (panel - part.panel0) * panel_elements);
    for (index_t strip = part.strip0; strip < part.strip1; ++strip) {
      const index_t row = strip * kTile;
      pack_rows(p, piece, row, a);
      if (strip + 1 < part.strip1) ask_for_strip(p, piece, row + kTile, part.panel1 - part.panel0, tiles);
      const Left<T> left = p.gemm.left(a, padded_k<T>(depth), std::min(kTile, p.args.m - row), depth, made);
      for (index_t panel = part.panel0; panel < part.panel1; ++panel)
        one_block(
            p, piece, row, panel, left,
            packed_b != nullptr ? packed_b + (panel - part.panel0) * panel_elements : p.panel(piece, panel),
            {p.sums != nullptr ? p.sums + row * sums.ld + panel * kTile : nullptr, sums.ld}, tiles);
    }
  }
}

constexpr index_t kStrips = 12;  // by kPanels of C: 768 KiB of fp32

// One thread's part, in pieces that its second-level cache holds. Where all of k is few pieces, C passes by
// so seldom that packing B again would cost more.
template <class T>
void strips_in_cache(const Product<T>& p, const Part& part) {
  Workspace::Frame frame(thread_workspace());
  const index_t depth = p.most_depth(), panels = p.most_panels();
  T* const a = frame.take<T>(static_cast<std::size_t>(kTile * padded_k<T>(depth)));
  T* const made = frame.take<T>(static_cast<std::size_t>(p.gemm.left_size(depth)));
  T* const packed_b = p.packed_b == nullptr
                          ? frame.take<T>(static_cast<std::size_t>(panels * p.gemm.panel_size(depth)))
                          : nullptr;
  const index_t step = p.pieces() > 2 ? kStrips : part.strip1 - part.strip0;
  TilePipeline<T> tiles(p.gemm, p.vector, frame);
  p.gemm.begin();
  for (index_t panel = part.panel0; panel < part.panel1; panel += panels)
    for (index_t strip = part.strip0; strip < part.strip1; strip += step)
      strips(p, {strip, std::min(part.strip1, strip + step), panel, std::min(part.panel1, panel + panels)}, a,
             made, packed_b, tiles);
  tiles.finish();
  p.gemm.end();
}

// A stored as [k, m]: each thread takes some strips of C over all of k. The split among the threads changes
// no sum. A few threads pack B each for itself, many share it.
template <class T>
void multiply_transposed(Isa isa, Product<T>& p) {
  constexpr index_t kFew = 4;
  Workspace::Frame frame(thread_workspace());
  const index_t count = round_up(p.args.m, kTile) / kTile, threads = loop_threads();
  if (threads > kFew) {
    T* const packed_b = frame.take<T>(static_cast<std::size_t>(right_size(isa, p.args)));
    pack_right(isa, p.args, packed_b);
    p.packed_b = packed_b;
  }
  if (p.args.c == nullptr && p.pieces() > 1)
    p.sums = frame.take<float>(static_cast<std::size_t>(count * kTile * round_up(p.args.n, kTile)));
  const index_t row_tasks = std::min(count, threads),
                panel_tasks = std::clamp(threads / row_tasks, index_t{1}, p.panels());
  each(row_tasks * panel_tasks, [&](index_t i) {
    const index_t r = i / panel_tasks, c = i % panel_tasks;
    strips_in_cache(p, {r * count / row_tasks, (r + 1) * count / row_tasks, c * p.panels() / panel_tasks,
                        (c + 1) * p.panels() / panel_tasks});
  });
}

}  // namespace

template <class T>
index_t right_size(Isa isa, const Matmul<T>& args) {
  const Product<T> p{.gemm = product_kernels<T>(isa), .vector = vector_kernels<T>(isa), .args = args};
  return p.pieces() * p.panels() * p.gemm.panel_size(p.piece_depth());
}

template <class T>
void pack_right(Isa isa, const Matmul<T>& args, T* out) {
  Product<T> p{.gemm = product_kernels<T>(isa), .vector = vector_kernels<T>(isa), .args = args};
  p.packed_b = out;
  pack<T>(p, out);
}

template <class T>
void matmul(Isa isa, const Matmul<T>& args) {
  if (args.m <= 0 || args.n <= 0) return;
  Workspace::Frame frame(thread_workspace());
  Product<T> p{.gemm = product_kernels<T>(isa), .vector = vector_kernels<T>(isa), .args = args};
  if (!args.a_transposed) {
    p.past = args.c_narrow != nullptr && !args.accumulate &&
             args.m * args.n * static_cast<index_t>(sizeof(T)) >= kPastCaches;
    T* const own =
        args.packed_b == nullptr ? frame.take<T>(static_cast<std::size_t>(right_size(isa, args))) : nullptr;
    if (own != nullptr) pack_right(isa, args, own);
    p.packed_b = own != nullptr ? own : args.packed_b;
    return multiply(p);
  }
  multiply_transposed(isa, p);
}

#define SINEW_MATMUL(T)                                \
  template index_t right_size(Isa, const Matmul<T>&);  \
  template void pack_right(Isa, const Matmul<T>&, T*); \
  template void matmul(Isa, const Matmul<T>&);
SINEW_MATMUL(float)
SINEW_MATMUL(bf16)

}  // namespace sinew
