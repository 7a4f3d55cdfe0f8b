// Runs of a tensor's memory as boxes of it, for checkpoints of sharded state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinew {

struct Box {
  std::vector<std::int64_t> offset, extent;
  std::int64_t elements() const {
    std::int64_t n = 1;
    for (const auto size : extent) n *= size;
    return n;
  }
  bool operator==(const Box&) const = default;
};

// Elements [begin, end) in row order of the box (offset, extent), as boxes of the whole tensor in the same
// order. Of a matrix at most three: the rest of a row, whole rows, the beginning of a row.
std::vector<Box> boxes_of_run(const Box& part, std::int64_t begin, std::int64_t end);

// "" when the boxes, each within `shape`, cover every element once; else what is wrong: "hold 5 of its 6
// elements", "overlap".
std::string tiling_problem(const std::vector<std::int64_t>& shape, const std::vector<Box>& boxes);

}  // namespace sinew
