#include "base/progress.hpp"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include <fmt/format.h>

#include "base/text.hpp"

namespace sinew {

using Clock = std::chrono::steady_clock;

Progress::Progress(std::string label, std::uint64_t total, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      start_(Clock::now()),
      drawn_(start_),
      terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (!finished_ && ever_drawn_ && terminal_) std::fputc('\n', stderr);
}

void Progress::update(std::uint64_t done) {
  done_ = done;
  const auto wait = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  if (Clock::now() - drawn_ >= wait) draw(false);
}

void Progress::finish() {
  if (std::exchange(finished_, true)) return;
  draw(true);
}

void Progress::draw(bool last) {
  drawn_ = Clock::now();
  ever_drawn_ = true;
  const double elapsed = std::chrono::duration<double>(drawn_ - start_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
  const auto amount = [&](double n) {
    return unit_ == "bytes" ? human_bytes(n) : human_count(n) + " " + unit_;
  };
  std::string line = fmt::format("{}: {}", label_, amount(static_cast<double>(done_)));
  if (total_ > 0 && !last)
    line += fmt::format(" of {} ({:.0f}%)", amount(static_cast<double>(total_)),
                        100.0 * static_cast<double>(done_) / static_cast<double>(total_));
  line += fmt::format(", {}/s", amount(rate));
  if (last)
    line += fmt::format(", {}", human_seconds(elapsed));
  else if (total_ > done_ && rate > 0)
    line += fmt::format(", {} left", human_seconds(static_cast<double>(total_ - done_) / rate));
  if (terminal_)
    fmt::print(stderr, "\r\x1b[K{}{}", line, last ? "\n" : "");
  else
    fmt::print(stderr, "{}\n", line);
  std::fflush(stderr);
}

}  // namespace sinew
