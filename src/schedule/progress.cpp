#include "schedule/progress.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/error.hpp"

namespace sinew {
namespace {

using Known = std::vector<int>;
using Message = std::tuple<int, int, bool>;  // stage that takes it, micro-batch, forward

void learn(Known& known, const Known& more) {
  for (std::size_t q = 0; q < known.size(); ++q) known[q] = std::max(known[q], more[q]);
}

}  // namespace

std::vector<std::vector<int>> known_progress(const Schedule& s, int rank) {
  const auto ranks = static_cast<std::size_t>(s.ranks);
  std::vector<Known> known(ranks, Known(ranks, 0));
  std::vector<std::size_t> next(ranks, 0);
  std::map<Message, Known> sent;  // and what its sender knew then
  std::vector<Known> out;
  bool moved = true;
  while (moved) {
    moved = false;
    for (std::size_t r = 0; r < ranks; ++r) {
      const auto& list = s.actions[r];
      for (; next[r] < list.size(); ++next[r]) {
        const Action& action = list[next[r]];
        const int stage = s.stage_of(static_cast<int>(r), action.chunk);
        const bool forward = action.pass == Pass::forward;
        const bool waits = action.pass != Pass::backward_weight && stage != (forward ? 0 : s.stages() - 1);
        if (waits) {
          const auto found = sent.find({stage, action.micro_batch, forward});
          if (found == sent.end()) break;
          learn(known[r], found->second);
          sent.erase(found);
        }
        if (static_cast<int>(r) == rank) out.push_back(known[r]);
        known[r][r] = static_cast<int>(next[r]) + 1;
        if (action.pass != Pass::backward_weight)
          sent[{forward ? stage + 1 : stage - 1, action.micro_batch, forward}] = known[r];
        moved = true;
      }
    }
  }
  for (std::size_t r = 0; r < ranks; ++r)
    require(next[r] == s.actions[r].size(), "schedule: rank {} waits for ever at its action {}", r, next[r]);
  return out;
}

}  // namespace sinew
