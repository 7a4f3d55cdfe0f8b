#include "storage/boxes.hpp"

#include <algorithm>

namespace sinew {

std::vector<Box> boxes_of_run(const Box& part, std::int64_t begin, std::int64_t end) {
  if (begin >= end) return {};
  if (part.extent.empty()) return {part};
  std::int64_t row = 1;  // elements of one index of the first dimension
  for (std::size_t d = 1; d < part.extent.size(); ++d) row *= part.extent[d];
  std::vector<Box> out;
  // Rows [first, last) whole.
  const auto whole = [&](std::int64_t first, std::int64_t last) {
    Box box = part;
    box.offset[0] += first;
    box.extent[0] = last - first;
    out.push_back(box);
  };
  // Elements [from, to) within one row.
  const auto within = [&](std::int64_t index, std::int64_t from, std::int64_t to) {
    const Box inner{.offset = {part.offset.begin() + 1, part.offset.end()},
                    .extent = {part.extent.begin() + 1, part.extent.end()}};
    for (auto box : boxes_of_run(inner, from, to)) {
      box.offset.insert(box.offset.begin(), part.offset[0] + index);
      box.extent.insert(box.extent.begin(), 1);
      out.push_back(std::move(box));
    }
  };
  const auto first = begin / row, last = end / row;
  if (first == last) {
    within(first, begin - first * row, end - first * row);
    return out;
  }
  const auto first_whole = first + (begin % row == 0 ? 0 : 1);
  if (begin % row != 0) within(first, begin - first * row, row);
  if (first_whole < last) whole(first_whole, last);
  if (end % row != 0) within(last, 0, end - last * row);
  return out;
}

}  // namespace sinew
