// Time as programs measure it.
#pragma once

#include <algorithm>
#include <chrono>

namespace sinew {

// Seconds of a clock that never goes back; only differences mean anything.
inline double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What one run of `body` takes.
template <class Body>
double seconds_of(const Body& body) {
  const double start = clock_seconds();
  body();
  return clock_seconds() - start;
}

// The shortest of at least three runs, as many as `during` seconds hold; of fewer on a machine so slow or
// loaded that they take five.
template <class Body>
double best_seconds(const Body& body, double during = 0.5) {
  const double start = clock_seconds();
  double best = seconds_of(body);
  for (int runs = 1; (runs < 3 || clock_seconds() - start < during) && clock_seconds() - start < 5; ++runs)
    best = std::min(best, seconds_of(body));
  return best;
}

}  // namespace sinew
