#include "kernels/routing.hpp"

#include <numeric>

#include "base/error.hpp"

namespace sinew {

void sort_by_expert(const std::int64_t* expert, index_t tokens, index_t top_k, index_t experts,
                    ExpertRows& out) {
  const index_t slots = tokens * top_k;
  ensure(slots < (index_t{1} << 31), "{} tokens x {} choices do not fit 32 bits", tokens, top_k);
  out.tokens = tokens;
  out.top_k = top_k;
  out.offsets.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (index_t s = 0; s < slots; ++s) {
    ensure(expert[s] < experts, "slot {} chose expert {} of {}", s, expert[s], experts);
    if (expert[s] >= 0) ++out.offsets[static_cast<std::size_t>(expert[s]) + 1];
  }
  std::partial_sum(out.offsets.begin(), out.offsets.end(), out.offsets.begin());
  out.slots.resize(static_cast<std::size_t>(out.offsets.back()));
  out.token_of.resize(out.slots.size());
  // offsets[e] walks to the end of e's rows, which is where e+1's begin; then all move back by one.
  for (index_t token = 0, s = 0; token < tokens; ++token)
    for (index_t rank = 0; rank < top_k; ++rank, ++s) {
      if (expert[s] < 0) continue;
      const auto row = static_cast<std::size_t>(out.offsets[static_cast<std::size_t>(expert[s])]++);
      out.slots[row] = static_cast<std::int32_t>(s);
      out.token_of[row] = static_cast<std::int32_t>(token);
    }
  for (std::size_t e = out.offsets.size() - 1; e > 0; --e) out.offsets[e] = out.offsets[e - 1];
  out.offsets[0] = 0;
}

void all_to_one(index_t tokens, ExpertRows& out) {
  out.tokens = tokens;
  out.top_k = 1;
  out.offsets = {0, static_cast<std::int32_t>(tokens)};
  out.slots.resize(static_cast<std::size_t>(tokens));
  std::iota(out.slots.begin(), out.slots.end(), 0);
  out.token_of = out.slots;
}

}  // namespace sinew
