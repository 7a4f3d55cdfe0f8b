// Products of many tokens: 32 rows of weights at a time are unpacked to 8 bits and stay in a core's caches
// while all tokens go by; meanwhile the packed bytes of what comes next are fetched, so that neither memory
// nor arithmetic waits for the other.
#pragma once

#include <algorithm>
#include <new>
#include <span>

#include "kernels/chained_tasks.hpp"
#include "kernels/quant_batch.hpp"

namespace sinew {

inline constexpr index_t kSliceRows = 32;
inline constexpr index_t kGroupsHeld = 4;  // groups of 16 tokens whose sums stay near while spans go by
inline constexpr index_t kMostJobs = 4;    // of one multiply_slices()

// Rows 32 index .. of w; `w` null: nothing.
struct Slice {
  const PackedMatrix* w = nullptr;
  index_t index = 0;

  index_t tile_bytes() const { return packed_layout(w->format).tile_bytes(w->cols); }
  index_t rows() const { return std::min(kSliceRows, w->rows - index * kSliceRows); }
  index_t tiles() const { return (rows() + kPackedRows - 1) / kPackedRows; }
  const std::byte* data() const { return w->data + 2 * index * tile_bytes(); }
  // The n-th after this one, or nothing.
  Slice after(index_t n) const {
    return w != nullptr && (index + n) * kSliceRows < w->rows ? Slice{w, index + n} : Slice{};
  }
};

// One slice at work: unpacked span by span as the first tokens need it, and kept for the others.
struct SliceJob {
  SliceJob(Workspace::Frame& frame, index_t cols)
      : codes(frame.take<std::int8_t>(static_cast<std::size_t>(spans(cols) * kSliceRows * kSpan))),
        scale(frame.take<float>(static_cast<std::size_t>(spans(cols) * kSliceRows))) {}

  Slice slice{};
  Slice coming{};         // what is to be fetched meanwhile,
  Fetch beside{};         // and with the last tokens
  float* acc = nullptr;   // [16 * kGroupsHeld, 32]: of the groups at hand; or
  bool keep_acc = false;  // .. of all groups
  std::int8_t* codes;     // [spans][2][16 * kSpan]
  float* scale;           // [spans][32]
};

inline SliceJob* take_jobs(Workspace::Frame& frame, index_t cols, index_t count) {
  auto* const jobs = frame.take<SliceJob>(static_cast<std::size_t>(count));
  for (index_t i = 0; i < count; ++i) new (jobs + i) SliceJob(frame, cols);
  return jobs;
}

namespace detail {
index_t multiply_first(const QuantKernels& kernels, const TiledBatch& x, std::span<SliceJob> jobs);
void multiply_more(const QuantKernels& kernels, const TiledBatch& x, std::span<SliceJob> jobs, index_t first,
                   index_t held);
}  // namespace detail

// All groups of x times the slices of all jobs, up to kMostJobs. Calls done(first, held) when the sums of
// groups [first, first
// + held) are there.
template <class Done>
void multiply_slices(const QuantKernels& kernels, const TiledBatch& x, std::span<SliceJob> jobs,
                     const Done& done) {
  kernels.begin();
  index_t g = detail::multiply_first(kernels, x, jobs);
  done(index_t{0}, g);
  for (; g < x.groups(); g += kGroupsHeld) {
    const index_t held = std::min(kGroupsHeld, x.groups() - g);
    detail::multiply_more(kernels, x, jobs, g, held);
    done(g, held);
  }
  kernels.end();
}

}  // namespace sinew
