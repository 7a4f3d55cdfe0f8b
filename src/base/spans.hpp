// Where the time of a step goes: named spans of one thread, nested, each second counted once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

enum class SpanKind : std::uint8_t { compute, communication, bubble, data, optimizer, count };
constexpr std::array<std::string_view, static_cast<std::size_t>(SpanKind::count)> kSpanNames{
    "compute", "communication", "bubble", "data", "optimizer"};

struct SpanEvent {
  std::string name;
  SpanKind kind = SpanKind::compute;
  std::int64_t begin = 0, end = 0;  // nanoseconds of span_now()
};

// Seconds by kind. A span's time is its own: what spans inside it took is theirs.
struct SpanTotals {
  std::array<double, static_cast<std::size_t>(SpanKind::count)> seconds{};
  double of(SpanKind kind) const { return seconds[static_cast<std::size_t>(kind)]; }
};

// What the spans of one thread come to while it lives and is current.
class SpanLog {
 public:
  SpanLog();
  ~SpanLog();
  SpanLog(const SpanLog&) = delete;
  SpanLog& operator=(const SpanLog&) = delete;

  // Events are kept (up to a million) only while this is on; totals always are.
  void keep_events(bool on) { keep_ = on; }
  const std::vector<SpanEvent>& events() const { return events_; }
  void clear_events() { events_.clear(); }
  SpanTotals take_totals();  // of the spans that ended since the last call

  static SpanLog* current();  // of this thread; null: spans cost nothing

 private:
  friend class Span;
  SpanTotals totals_;
  std::vector<SpanEvent> events_;
  bool keep_ = false;
  SpanKind open_ = SpanKind::count;  // of the innermost span
  std::int64_t inside_ = 0;          // nanoseconds that finished spans took inside the one that is open
  SpanLog* before_;
};

std::int64_t span_now();  // nanoseconds, never falling, of this machine

// Communication inside a bubble is part of the bubble: what a pipeline's rank waits for.
class Span {
 public:
  // `name` must outlive the span.
  Span(SpanKind kind, std::string_view name, std::int64_t number = -1);
  ~Span();
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  SpanLog* log_;
  SpanKind kind_, outer_ = SpanKind::count;
  std::string_view name_;
  std::int64_t number_, begin_ = 0, outer_inside_ = 0;
};

}  // namespace sinew
