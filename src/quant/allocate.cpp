#include "quant/allocate.hpp"

#include <algorithm>
#include <limits>

namespace sinew {
namespace {

using Picks = std::vector<std::size_t>;
using Items = std::vector<std::vector<FormatChoice>>;

std::uint64_t bytes_of(const Items& items, const Picks& picks) {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < items.size(); ++i) total += items[i][picks[i]].bytes;
  return total;
}

double cost_of(const Items& items, const Picks& picks) {
  double total = 0;
  for (std::size_t i = 0; i < items.size(); ++i) total += items[i][picks[i]].cost;
  return total;
}

Picks smallest(const Items& items) {
  Picks picks(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t k = 1; k < items[i].size(); ++k) {
      const FormatChoice &a = items[i][k], &b = items[i][picks[i]];
      if (a.bytes < b.bytes || (a.bytes == b.bytes && a.cost < b.cost)) picks[i] = k;
    }
  }
  return picks;
}

// Takes, again and again, the change that lowers the cost most for each byte it adds, while one fits.
void climb(const Items& items, std::uint64_t budget, Picks& picks) {
  std::uint64_t used = bytes_of(items, picks);
  for (;;) {
    double best_rate = 0;
    std::size_t best_item = items.size(), best_pick = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const FormatChoice& now = items[i][picks[i]];
      for (std::size_t k = 0; k < items[i].size(); ++k) {
        const FormatChoice& other = items[i][k];
        const double gain = now.cost - other.cost;
        if (gain <= 0 || used - now.bytes + other.bytes > budget) continue;
        const double more = other.bytes > now.bytes ? static_cast<double>(other.bytes - now.bytes) : 0.5;
        if (gain / more > best_rate) {
          best_rate = gain / more;
          best_item = i;
          best_pick = k;
        }
      }
    }
    if (best_item == items.size()) return;
    used = used - items[best_item][picks[best_item]].bytes + items[best_item][best_pick].bytes;
    picks[best_item] = best_pick;
  }
}

// Exact on a grid: bytes are counted in units, rounded up, so that what fits the grid fits the budget.
Picks by_grid(const Items& items, std::uint64_t budget) {
  constexpr std::uint64_t kUnits = 8192;
  const Picks base = smallest(items);
  const std::uint64_t least = bytes_of(items, base), room = budget - least;
  const std::uint64_t unit = std::max<std::uint64_t>(1, room / kUnits);
  const std::size_t width = static_cast<std::size_t>(room / unit) + 1;
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<double> cost(width,
                           0);  // least cost of the items so far within so many units beyond the smallest
  std::vector<std::vector<std::uint8_t>> from(items.size(), std::vector<std::uint8_t>(width, 0));
  for (std::size_t i = 0; i < items.size(); ++i) {
    std::vector<double> next(width, kNever);
    for (std::size_t k = 0; k < items[i].size() && k < 256; ++k) {
      const std::uint64_t extra = (items[i][k].bytes - items[i][base[i]].bytes + unit - 1) / unit;
      for (std::size_t at = static_cast<std::size_t>(extra); at < width; ++at) {
        const double total = cost[at - static_cast<std::size_t>(extra)] + items[i][k].cost;
        if (total < next[at]) {
          next[at] = total;
          from[i][at] = static_cast<std::uint8_t>(k);
        }
      }
      if (extra >= width) continue;
    }
    cost = std::move(next);
  }
  Picks picks(items.size());
  std::size_t at = width - 1;
  for (std::size_t i = items.size(); i-- > 0;) {
    picks[i] = from[i][at];
    at -= static_cast<std::size_t>((items[i][picks[i]].bytes - items[i][base[i]].bytes + unit - 1) / unit);
  }
  return picks;
}

}  // namespace

Picks allocate(const Items& items, std::uint64_t budget) {
  Picks climbed = smallest(items);
  if (bytes_of(items, climbed) > budget) return {};
  climb(items, budget, climbed);
  Picks gridded = by_grid(items, budget);
  climb(items, budget, gridded);
  return cost_of(items, gridded) < cost_of(items, climbed) ? gridded : climbed;
}

}  // namespace sinew
