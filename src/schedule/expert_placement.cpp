#include "schedule/expert_placement.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"

namespace sinew {
namespace {

struct Item {
  int what;
  double load;
};

// `items` into `bins` of `room` each, heaviest first, each into the lightest bin that has room.
std::vector<std::vector<int>> pack(std::vector<Item> items, int bins, int room) {
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.load > b.load; });
  std::vector<std::vector<int>> out(static_cast<std::size_t>(bins));
  std::vector<double> weight(static_cast<std::size_t>(bins), 0);
  for (const Item& item : items) {
    std::size_t best = out.size();
    for (std::size_t b = 0; b < out.size(); ++b)
      if (static_cast<int>(out[b].size()) < room && (best == out.size() || weight[b] < weight[best]))
        best = b;
    out[best].push_back(item.what);
    weight[best] += item.load;
  }
  return out;
}

// Copies of `experts` until there are `slots`: each further one for the expert whose copies are busiest.
std::vector<Item> with_copies(const std::vector<int>& experts, std::span<const double> loads, int slots,
                              std::vector<int>& copies) {
  for (const int e : experts) copies[static_cast<std::size_t>(e)] = 1;
  for (int extra = slots - static_cast<int>(experts.size()); extra > 0; --extra) {
    const auto busy = [&](int e) {
      return loads[static_cast<std::size_t>(e)] / copies[static_cast<std::size_t>(e)];
    };
    const int hot =
        *std::max_element(experts.begin(), experts.end(), [&](int a, int b) { return busy(a) < busy(b); });
    ++copies[static_cast<std::size_t>(hot)];
  }
  std::vector<Item> items;
  for (const int e : experts)
    for (int c = 0; c < copies[static_cast<std::size_t>(e)]; ++c)
      items.push_back({e, loads[static_cast<std::size_t>(e)] / copies[static_cast<std::size_t>(e)]});
  return items;
}

void check(std::span<const double> loads, const PlacementOptions& o) {
  const auto experts = static_cast<int>(loads.size());
  require(o.devices >= 1 && o.nodes >= 1 && o.devices % o.nodes == 0,
          "expert placement: {} devices do not divide over {} nodes", o.devices, o.nodes);
  require(o.groups >= 1 && experts % o.groups == 0,
          "expert placement: {} experts do not form {} equal groups", experts, o.groups);
  require(experts > 0 && static_cast<std::int64_t>(o.devices) * o.slots >= experts,
          "expert placement: {} devices of {} slots cannot hold {} experts; the fewest slots are {}",
          o.devices, o.slots, experts, (experts + o.devices - 1) / o.devices);
  for (const double load : loads)
    require(std::isfinite(load) && load >= 0, "expert placement: a load is {}", load);
}

}  // namespace

double Placement::imbalance() const {
  const double sum = std::accumulate(load.begin(), load.end(), 0.0);
  if (sum == 0) return 1;
  return *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) / sum;
}

Placement place_experts(std::span<const double> loads, const PlacementOptions& o) {
  check(loads, o);
  const auto experts = static_cast<int>(loads.size());
  const int in_group = experts / o.groups;
  const bool by_node = o.nodes > 1 && o.groups % o.nodes == 0;
  // Which experts each node (or, without nodes, everybody) holds.
  std::vector<Item> groups;
  for (int g = 0; g < o.groups; ++g) {
    double sum = 0;
    for (int e = g * in_group; e < (g + 1) * in_group; ++e) sum += loads[static_cast<std::size_t>(e)];
    groups.push_back({g, sum});
  }
  const int regions = by_node ? o.nodes : 1, devices = o.devices / regions;
  const auto packed =
      by_node ? pack(groups, regions, o.groups / regions) : std::vector<std::vector<int>>{[&] {
        std::vector<int> all(static_cast<std::size_t>(o.groups));
        std::iota(all.begin(), all.end(), 0);
        return all;
      }()};
  Placement out;
  out.copies.assign(loads.size(), 0);
  for (const auto& region : packed) {
    std::vector<int> members;
    for (const int g : region)
      for (int e = g * in_group; e < (g + 1) * in_group; ++e) members.push_back(e);
    std::sort(members.begin(), members.end());
    const auto items = with_copies(members, loads, devices * o.slots, out.copies);
    for (auto& held : pack(items, devices, o.slots)) {
      double sum = 0;
      for (const int e : held)
        sum += loads[static_cast<std::size_t>(e)] / out.copies[static_cast<std::size_t>(e)];
      std::sort(held.begin(), held.end());
      out.experts.push_back(std::move(held));
      out.load.push_back(sum);
    }
  }
  return out;
}

}  // namespace sinew
