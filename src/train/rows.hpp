// Which rows of a batch a process reads and works on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sinew {

struct RowRun {
  std::int64_t first, count;
};

// Of a batch of `rows` in micro-batches of `micro` rows, those of replica `place` of `replicas`: an equal
// part of each micro-batch, in order. `replicas` divides `micro`, and `micro` divides `rows`, where it is
// above 1.
inline std::vector<RowRun> rows_of_replica(std::int64_t rows, std::int64_t micro, std::int64_t replicas,
                                           std::int64_t place) {
  if (replicas == 1) return {{0, rows}};
  std::vector<RowRun> runs;
  for (std::int64_t first = 0; first < rows; first += micro)
    runs.push_back({first + place * (micro / replicas), micro / replicas});
  return runs;
}

}  // namespace sinew
