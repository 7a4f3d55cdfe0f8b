#include "schedule/schedule.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "schedule/builders.hpp"

namespace sinew {
namespace {

constexpr std::int64_t most_actions = 1 << 20;  // a rank

struct Named {
  ScheduleKind kind;
  const char* name;
};
constexpr Named names[] = {{ScheduleKind::gpipe, "gpipe"},
                           {ScheduleKind::gpipe_flush, "gpipe-flush"},
                           {ScheduleKind::one_f_one_b, "1f1b"},
                           {ScheduleKind::interleaved, "interleaved"},
                           {ScheduleKind::zero_bubble, "zero-bubble"},
                           {ScheduleKind::dualpipe_v, "dualpipe-v"}};

}  // namespace

int Schedule::stage_of(int rank, int chunk) const {
  if (kind == ScheduleKind::dualpipe_v && chunk == 1) return 2 * ranks - 1 - rank;
  return chunk * ranks + rank;
}

int Schedule::rank_of(int stage) const {
  if (kind == ScheduleKind::dualpipe_v && stage >= ranks) return 2 * ranks - 1 - stage;
  return stage % ranks;
}

int Schedule::chunk_of(int stage) const { return stage / ranks; }

Schedule make_schedule(ScheduleKind kind, int ranks, int micro_batches, int chunks) {
  require(ranks >= 1 && micro_batches >= 1 && chunks >= 1,
          "schedule: ranks ({}), micro-batches ({}) and chunks ({}) must be 1 or more", ranks, micro_batches,
          chunks);
  if (kind == ScheduleKind::dualpipe_v) chunks = 2;
  if (kind != ScheduleKind::dualpipe_v && kind != ScheduleKind::interleaved) chunks = 1;
  require(3LL * (std::int64_t{micro_batches} + 2 * ranks) * chunks <= most_actions && ranks <= 1 << 14,
          "schedule: {} micro-batches of {} chunks on {} ranks is too much; use fewer", micro_batches, chunks,
          ranks);
  Schedule schedule{kind, ranks, chunks, micro_batches, {}};
  for (int rank = 0; rank < ranks && kind != ScheduleKind::zero_bubble; ++rank) {
    std::vector<Action> list;
    switch (kind) {
      case ScheduleKind::gpipe:
        list = build::gpipe(micro_batches, micro_batches);
        break;
      case ScheduleKind::gpipe_flush:
        list = build::gpipe(micro_batches, ranks);
        break;
      case ScheduleKind::one_f_one_b:
        list = build::one_f_one_b(ranks, rank, micro_batches);
        break;
      case ScheduleKind::interleaved:
        list = build::interleaved(ranks, rank, micro_batches, chunks);
        break;
      case ScheduleKind::dualpipe_v:
        list = build::dualpipe_v(ranks, rank, micro_batches);
        break;
      case ScheduleKind::zero_bubble:
        break;
    }
    schedule.actions.push_back(std::move(list));
  }
  if (kind == ScheduleKind::zero_bubble) schedule.actions = build::zero_bubble(ranks, micro_batches);
  return schedule;
}

ScheduleKind parse_schedule_kind(std::string_view name) {
  std::vector<std::string> known;
  for (const Named& entry : names) {
    if (name == entry.name) return entry.kind;
    known.emplace_back(entry.name);
  }
  fail("schedule '{}': unknown (gpipe, gpipe-flush, 1f1b, interleaved, zero-bubble, dualpipe-v){}", name,
       did_you_mean(name, known));
}

std::string schedule_name(ScheduleKind kind) {
  for (const Named& entry : names)
    if (entry.kind == kind) return entry.name;
  return "?";
}

const std::vector<ScheduleKind>& schedule_kinds() {
  static const std::vector<ScheduleKind> kinds = {ScheduleKind::gpipe,       ScheduleKind::gpipe_flush,
                                                  ScheduleKind::one_f_one_b, ScheduleKind::interleaved,
                                                  ScheduleKind::zero_bubble, ScheduleKind::dualpipe_v};
  return kinds;
}

}  // namespace sinew
