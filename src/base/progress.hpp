// A progress line on standard error: redrawn in place on a terminal, printed every ten seconds elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sinew {

class Progress {
 public:
  // `total` 0 means unknown. `unit` is what is counted, "bytes" being printed as sizes.
  Progress(std::string label, std::uint64_t total, std::string unit);
  ~Progress();
  void update(std::uint64_t done);  // cheap; draws at most ten times a second
  void finish();                    // draws the last state and ends the line

 private:
  std::string label_, unit_;
  std::uint64_t total_, done_ = 0;
  std::chrono::steady_clock::time_point start_, drawn_;
  bool terminal_, finished_ = false, ever_drawn_ = false;
  void draw(bool last);
};

}  // namespace sinew
