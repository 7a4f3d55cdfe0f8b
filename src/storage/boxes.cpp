#include "storage/boxes.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace sinew {
namespace {

bool share_elements(const Box& a, const Box& b) {
  for (std::size_t d = 0; d < a.offset.size(); ++d)
    if (a.offset[d] >= b.offset[d] + b.extent[d] || b.offset[d] >= a.offset[d] + a.extent[d]) return false;
  return true;
}

}  // namespace

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

std::string tiling_problem(const std::vector<std::int64_t>& shape, const std::vector<Box>& boxes) {
  const std::int64_t whole = Box{.offset = {}, .extent = shape}.elements();
  std::int64_t held = 0;
  std::vector<const Box*> order;
  for (const Box& box : boxes) {
    order.push_back(&box);
    held += box.elements();
    if (held > whole) return "overlap";
  }
  if (held < whole) return fmt::format("hold {} of its {} elements", held, whole);
  if (shape.empty()) return "";
  // By their first row; beside each only those are looked at that have not ended by then. As many elements as
  // there are, none of them twice: none is missing.
  std::stable_sort(order.begin(), order.end(),
                   [](const Box* a, const Box* b) { return a->offset[0] < b->offset[0]; });
  constexpr std::int64_t kMostComparisons = 1'000'000'000;  // of a hostile manifest
  std::int64_t comparisons = 0;
  std::vector<const Box*> open;
  for (const Box* box : order) {
    std::erase_if(open, [&](const Box* o) { return o->offset[0] + o->extent[0] <= box->offset[0]; });
    comparisons += static_cast<std::int64_t>(open.size());
    if (comparisons > kMostComparisons) return "are too many";
    for (const Box* other : open)
      if (share_elements(*box, *other)) return "overlap";
    open.push_back(box);
  }
  return "";
}

}  // namespace sinew
