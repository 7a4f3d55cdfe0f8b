#include "kernels/quant_slices.hpp"

#include <cstring>

namespace sinew {
namespace {

constexpr index_t kHalf = kPackedRows * kSpan;

constexpr index_t kFirstGroups = 3;  // what product_while() takes

index_t lines(const Slice& slice) { return slice.w == nullptr ? 0 : slice.tiles() * slice.tile_bytes() / 64; }

// What is coming, part by part.
class ComingParts {
 public:
  ComingParts() = default;
  ComingParts(const Slice& slice, index_t part, index_t parts) {
    if (slice.w == nullptr) return;
    lines_ = (lines(slice) + parts - 1) / parts;
    at_ = slice.data() + part * lines_ * 64;
  }
  Fetch next() {
    const Fetch part{at_, lines_};
    at_ += lines_ * 64;
    return part;
  }

 private:
  const std::byte* at_ = nullptr;
  index_t lines_ = 0;
};

// Of each job.
struct PartsOfJobs {
  PartsOfJobs(std::span<const SliceJob> jobs, index_t part, index_t parts) {
    for (std::size_t j = 0; j < jobs.size(); ++j) of[j] = {jobs[j].coming, part, parts};
  }
  ComingParts& operator[](std::size_t job) { return of[job]; }
  ComingParts of[kMostJobs];
};

void unpack(const QuantKernels& kernels, const SliceJob& job, index_t span) {
  std::int8_t* const codes = job.codes + 2 * span * kHalf;
  float* const scale = job.scale + span * kSliceRows;
  const PackedMatrix& w = *job.slice.w;
  const std::byte* const data = job.slice.data();
  kernels.unpack_span(w.format, data, w.cols, span, codes, scale);
  if (job.slice.tiles() > 1) {
    kernels.unpack_span(w.format, data + job.slice.tile_bytes(), w.cols, span, codes + kHalf,
                        scale + kPackedRows);
  } else {  // the other half of the last slice
    std::memset(codes + kHalf, 0, static_cast<std::size_t>(kHalf));
    std::fill_n(scale + kPackedRows, kPackedRows, 0.0F);
  }
}

void product(const QuantKernels& kernels, const TiledBatch& x, const SliceJob& job, index_t span,
             index_t first, index_t held, ComingParts& ahead) {
  const index_t place = span * x.groups() * 16 + first * 16;
  kernels.product(x.at(span, first), x.steps(span) * 1024, std::min(held * 16, x.tokens - first * 16),
                  x.steps(span), job.codes + 2 * span * kHalf, job.scale + span * kSliceRows, x.scale + place,
                  x.sums + place, job.acc + (job.keep_acc ? first * 16 * kSliceRows : 0), span == 0,
                  ahead.next());
}

// The same of the first groups while span `next` of job `other` is unpacked.
void product_while(const QuantKernels& kernels, const TiledBatch& x, const SliceJob& job, index_t span,
                   index_t held, const SliceJob& other, index_t next, ComingParts& ahead) {
  const Slice& slice = other.slice;
  const SpanToUnpack coming{slice.w->format,
                            slice.data(),
                            slice.tiles() > 1 ? slice.data() + slice.tile_bytes() : nullptr,
                            slice.w->cols,
                            next,
                            other.codes + 2 * next * kHalf,
                            other.scale + next * kSliceRows,
                            ahead.next()};
  kernels.product_while(x.at(span, 0), x.steps(span) * 1024, held, x.steps(span),
                        job.codes + 2 * span * kHalf, job.scale + span * kSliceRows,
                        x.scale + span * x.groups() * 16, job.acc, span == 0, coming);
}

// How often each part of the slices goes by: once for each lot of tokens.
index_t lots(const TiledBatch& x) {
  return 1 + std::max<index_t>(0, x.groups() - kFirstGroups + kGroupsHeld - 1) / kGroupsHeld;
}

}  // namespace

// The first tokens see each span as soon as it is unpacked; where tiles do the products, vectors unpack the
// next one at the same time.
index_t detail::multiply_first(const QuantKernels& kernels, const TiledBatch& x, std::span<SliceJob> jobs) {
  const index_t held = std::min(kFirstGroups, x.groups());
  PartsOfJobs ahead(jobs, 0, spans(x.cols) * lots(x));
  unpack(kernels, jobs[0], 0);
  for (index_t span = 0, job = 0; span < spans(x.cols);) {
    const bool wraps = static_cast<std::size_t>(job) + 1 == jobs.size();
    const index_t next_job = wraps ? 0 : job + 1, next = span + (wraps ? 1 : 0);
    const SliceJob &here = jobs[static_cast<std::size_t>(job)],
                   &there = jobs[static_cast<std::size_t>(next_job)];
    ComingParts& fetched = ahead[static_cast<std::size_t>(job)];
    const bool more = next < spans(x.cols);
    if (kernels.product_while != nullptr && more) {
      product_while(kernels, x, here, span, held, there, next, fetched);
    } else {
      product(kernels, x, here, span, 0, held, fetched);
      if (more) unpack(kernels, there, next);
    }
    span = next;
    job = next_job;
  }
  return held;
}

void detail::multiply_more(const QuantKernels& kernels, const TiledBatch& x, std::span<SliceJob> jobs,
                           index_t first, index_t held) {
  const index_t lot = 1 + (first - kFirstGroups) / kGroupsHeld;
  PartsOfJobs ahead(jobs, lot * spans(x.cols), spans(x.cols) * lots(x));
  for (index_t s = 0; s < spans(x.cols); ++s)
    for (std::size_t j = 0; j < jobs.size(); ++j) product(kernels, x, jobs[j], s, first, held, ahead[j]);
}

}  // namespace sinew
