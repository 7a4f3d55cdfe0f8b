#include "kernels/read_ahead.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/isa.hpp"
#include "kernels/quant_batch.hpp"
#include "kernels/quant_support.hpp"
#include "kernels/quant_tables.hpp"

namespace sinew {
namespace {

class Reading {
 public:
  explicit Reading(const ReadAhead& how) : before_(read_ahead()) { use_read_ahead(how); }
  ~Reading() { use_read_ahead(before_); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

 private:
  ReadAhead before_;
};

}  // namespace

// How memory is asked for what comes is nobody's business but memory's: results are the same bit by bit.
TEST(ReadAhead, ResultsDoNotDependOnIt) {
  constexpr index_t rows = 48, cols = 512, tiles = rows / 16;
  const auto x = test::random_matrix<float>(2 * cols, 3);
  for (const BlockFormat format : test::packable_formats()) {
    const auto blocks = test::random_blocks(format, rows, cols, 7);
    test::Aligned<std::byte> w(static_cast<index_t>(packed_bytes(format, rows, cols)));
    pack_tiles(format, blocks.data(), rows, cols, 0, tiles, w.data());
    for (const Isa isa : available_isas()) {
      const QuantKernels* const kernels = quant_kernels(isa);
      if (kernels == nullptr) continue;
      Workspace::Frame frame(thread_workspace());
      const QuantBatch batch = take_batch(frame, 2, cols);
      for (index_t t = 0; t < 2; ++t) kernels->quantize_row(x.data() + t * cols, cols, batch.row(t));
      for (const index_t tokens : {1, 2})
        for (const std::byte* next :
             {static_cast<const std::byte*>(nullptr), static_cast<const std::byte*>(w.data())}) {
          const auto made = [&](const ReadAhead& how) {
            const Reading reading(how);
            std::vector<float> out(static_cast<std::size_t>(tokens * rows));
            kernels->dot_tiles(format, w.data(), tiles, cols, batch.rows(frame), tokens, next, out.data(),
                               rows);
            return out;
          };
          const auto one = made({.far = 3072, .near = 512});
          EXPECT_EQ(one, made({.far = 8192, .near = 0})) << isa_name(isa) << " " << tokens;
        }
    }
  }
}

}  // namespace sinew
