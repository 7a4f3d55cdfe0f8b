#include "train/guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sinew {
namespace {

constexpr std::size_t kWindow = 32, kEnough = 8;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::string SpikeGuard::judge(double loss, double gradient_norm) {
  std::string why;
  if (!std::isfinite(loss)) {
    why = fmt::format("the loss is {}", loss);
  } else if (!std::isfinite(gradient_norm)) {
    why = fmt::format("the gradient norm is {}", gradient_norm);
  } else if (factor_ > 0 && recent_.size() >= kEnough) {
    const double usual = median(recent_);
    if (loss > factor_ * usual)
      why = fmt::format("the loss {:.4f} is over {:g} times the recent median {:.4f}", loss, factor_, usual);
  }
  if (!why.empty()) {
    ++skipped_;
    return why;
  }
  skipped_ = 0;
  recent_.push_back(loss);
  if (recent_.size() > kWindow) recent_.erase(recent_.begin());
  return why;
}

void SpikeGuard::restore(State state) {
  recent_ = std::move(state.recent);
  skipped_ = state.skipped;
}

}  // namespace sinew
