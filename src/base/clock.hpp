// Time as programs measure it.
#pragma once

#include <chrono>

namespace sinew {

// Seconds of a clock that never goes back; only differences mean anything.
inline double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace sinew
