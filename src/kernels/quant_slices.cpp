#include "kernels/quant_slices.hpp"

#include <cstring>

namespace sinew {
namespace {

constexpr index_t kHalf = kPackedRows * kSpan;

constexpr index_t kFirstGroups = 3;  // what product_while() takes

index_t lines(const Slice& slice) { return slice.w == nullptr ? 0 : slice.tiles() * slice.tile_bytes() / 64; }

// Memory in equal parts.
class Parts {
 public:
  Parts() = default;
  Parts(const std::byte* at, index_t lines, index_t part, index_t parts)
      : lines_((lines + parts - 1) / parts), at_(at + part * lines_ * 64) {}
  Fetch next() {
    const Fetch part{at_, lines_};
    at_ += lines_ * 64;
    return part;
  }

 private:
  index_t lines_ = 0;
  const std::byte* at_ = nullptr;
};

// What each job fetches while one lot of tokens goes by.
class FetchedByJobs {
 public:
  FetchedByJobs(const TiledBatch& x, std::span<const SliceJob> jobs, index_t lot, index_t lots)
      : x_(x), jobs_(static_cast<index_t>(jobs.size())), last_(lot + 1 == lots) {
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      const Slice& slice = jobs[j].coming;
      if (slice.w != nullptr)
        coming_[j] = {slice.data(), lines(slice), lot * spans(x.cols), lots * spans(x.cols)};
      const Fetch& beside = jobs[j].beside;
      if (last_ && beside.lines > 0) beside_[j] = {beside.at, beside.lines, 0, spans(x.cols)};
    }
  }
  // During the product of one span with tokens up to those of `group`.
  Fetch next(std::size_t job, index_t span, index_t group) {
    Fetch all = coming_[job].next();
    const Fetch more = last_ ? beside_[job].next() : tokens(static_cast<index_t>(job), span, group);
    all.then = more.at;
    all.then_lines = more.lines;
    return all;
  }

 private:
  // This job's share of the next lot.
  Fetch tokens(index_t job, index_t span, index_t group) const {
    const index_t held = std::min(kGroupsHeld, x_.groups() - group), all = held * x_.steps(span) * 16;
    const index_t begin = all * job / jobs_, end = all * (job + 1) / jobs_;
    return {reinterpret_cast<const std::byte*>(x_.at(span, group)) + begin * 64, end - begin};
  }
  const TiledBatch& x_;
  const index_t jobs_;
  const bool last_;
  Parts coming_[kMostJobs], beside_[kMostJobs];
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
             index_t first, index_t held, const Fetch& ahead) {
  const index_t place = span * x.groups() * 16 + first * 16;
  kernels.product(x.at(span, first), x.steps(span) * 1024, std::min(held * 16, x.tokens - first * 16),
                  x.steps(span), job.codes + 2 * span * kHalf, job.scale + span * kSliceRows, x.scale + place,
                  x.sums + place, job.acc + (job.keep_acc ? first * 16 * kSliceRows : 0), span == 0, ahead);
}

// The same of the first groups while span `next` of job `other` is unpacked.
void product_while(const QuantKernels& kernels, const TiledBatch& x, const SliceJob& job, index_t span,
                   index_t held, const SliceJob& other, index_t next, const Fetch& ahead) {
  const Slice& slice = other.slice;
  const SpanToUnpack coming{slice.w->format,
                            slice.data(),
                            slice.tiles() > 1 ? slice.data() + slice.tile_bytes() : nullptr,
                            slice.w->cols,
                            next,
                            other.codes + 2 * next * kHalf,
                            other.scale + next * kSliceRows,
                            ahead};
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
  FetchedByJobs ahead(x, jobs, 0, lots(x));
  unpack(kernels, jobs[0], 0);
  for (index_t span = 0, job = 0; span < spans(x.cols);) {
    const bool wraps = static_cast<std::size_t>(job) + 1 == jobs.size();
    const index_t next_job = wraps ? 0 : job + 1, next = span + (wraps ? 1 : 0);
    const SliceJob &here = jobs[static_cast<std::size_t>(job)],
                   &there = jobs[static_cast<std::size_t>(next_job)];
    const Fetch fetched = ahead.next(static_cast<std::size_t>(job), span, held);
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
  FetchedByJobs ahead(x, jobs, lot, lots(x));
  for (index_t s = 0; s < spans(x.cols); ++s)
    for (std::size_t j = 0; j < jobs.size(); ++j)
      product(kernels, x, jobs[j], s, first, held, ahead.next(j, s, first + held));
}

}  // namespace sinew
