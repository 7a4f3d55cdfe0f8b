#include "base/spans.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace sinew {
namespace {

constexpr std::size_t kMostEvents = 1'000'000;

thread_local SpanLog* current_log = nullptr;

}  // namespace

std::int64_t span_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

SpanLog::SpanLog() : before_(current_log) { current_log = this; }
SpanLog::~SpanLog() { current_log = before_; }
SpanLog* SpanLog::current() { return current_log; }
SpanTotals SpanLog::take_totals() { return std::exchange(totals_, {}); }

Span::Span(SpanKind kind, std::string_view name, std::int64_t number)
    : log_(current_log), kind_(kind), name_(name), number_(number) {
  if (log_ == nullptr) return;
  outer_ = log_->open_;
  if (kind_ == SpanKind::communication && outer_ == SpanKind::bubble) kind_ = SpanKind::bubble;
  log_->open_ = kind_;
  outer_inside_ = std::exchange(log_->inside_, 0);
  begin_ = span_now();
}

Span::~Span() {
  if (log_ == nullptr) return;
  const std::int64_t end = span_now(), whole = end - begin_;
  log_->totals_.seconds[static_cast<std::size_t>(kind_)] += static_cast<double>(whole - log_->inside_) * 1e-9;
  log_->inside_ = outer_inside_ + whole;
  log_->open_ = outer_;
  if (!log_->keep_ || log_->events_.size() >= kMostEvents) return;
  log_->events_.push_back(
      {number_ < 0 ? std::string(name_) : fmt::format("{} {}", name_, number_), kind_, begin_, end});
}

}  // namespace sinew
