// Layouts as text, and why one is not the best.
#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/text.hpp"
#include "plan/search.hpp"

namespace sinew::plan {

namespace {

int whole_number(const std::string& key, const std::string& value) {
  char* end = nullptr;
  const long v = std::strtol(value.c_str(), &end, 10);
  require(end != value.c_str() && *end == 0 && v >= 0 && v <= 1 << 24,
          "layout {}={}: a whole number is wanted", key, value);
  return static_cast<int>(v);
}

Recompute recompute_of(std::string parts) {
  std::replace(parts.begin(), parts.end(), '+', ',');
  const bool one =
      parts.find(',') == std::string::npos && parts != "full" && parts != "none" && parts != "selective";
  return parse_recompute(one ? parts + "," : parts);
}

}  // namespace

SearchSpace parse_space(const std::string& text) {
  SearchSpace s;
  const std::vector<std::string> known = {"tp", "pp",   "vpp",      "cp",        "ep",      "etp",
                                          "mb", "zero", "schedule", "recompute", "offload", "nodes"};
  const std::pair<const char*, std::vector<int>*> numbers[] = {
      {"tp", &s.tensor},      {"pp", &s.pipeline}, {"vpp", &s.chunks},
      {"cp", &s.context},     {"ep", &s.expert},   {"etp", &s.expert_tensor},
      {"mb", &s.micro_batch}, {"zero", &s.zero},   {"nodes", &s.node_limits}};
  for (const std::string& word : split(text, ' ')) {
    if (word.empty()) continue;
    const auto equals = word.find('=');
    require(equals != std::string::npos, "layout '{}': write key=value,value .., e.g. tp=1,2,4 zero=1", word);
    const std::string key = word.substr(0, equals);
    require(std::find(known.begin(), known.end(), key) != known.end(), "layout: unknown key '{}'{}", key,
            did_you_mean(key, known));
    for (const std::string& value : split(word.substr(equals + 1), ',')) {
      for (const auto& [name, list] : numbers)
        if (key == name) {
          list->push_back(whole_number(key, value));
          require(key == "zero" || key == "nodes" || list->back() > 0, "layout {}={}: 1 or more is wanted",
                  key, value);
        }
      if (key == "schedule") s.schedules.push_back(parse_schedule_kind(value));
      if (key == "recompute") s.recompute.push_back(recompute_of(value));
      if (key == "offload") s.offload = whole_number(key, value) != 0;
    }
  }
  return s;
}

Layout parse_layout(const std::string& text, const Setup& base) {
  Layout l = base.layout;
  const std::vector<std::string> known = {"tp", "pp",   "vpp", "dp",       "cp",        "ep",      "etp",
                                          "mb", "zero", "sp",  "schedule", "recompute", "offload", "nodes"};
  std::string spaced = text;
  std::replace(spaced.begin(), spaced.end(), ',', ' ');
  bool data_given = false, schedule_given = false;
  for (const std::string& word : split(spaced, ' ')) {
    if (word.empty()) continue;
    const auto equals = word.find('=');
    require(equals != std::string::npos, "layout '{}': write key=value, e.g. tp=4 pp=8 dp=64", word);
    const std::string key = word.substr(0, equals), value = word.substr(equals + 1);
    const auto number = [&] { return whole_number(key, value); };
    if (key == "tp")
      l.tensor = number();
    else if (key == "pp")
      l.pipeline = number();
    else if (key == "vpp")
      l.chunks = number();
    else if (key == "dp")
      l.data = number(), data_given = true;
    else if (key == "cp")
      l.context = number();
    else if (key == "ep")
      l.expert = number();
    else if (key == "etp")
      l.expert_tensor = number();
    else if (key == "mb")
      l.micro_batch = number();
    else if (key == "zero")
      l.zero = number();
    else if (key == "sp")
      l.sequence_parallel = number() != 0;
    else if (key == "offload")
      l.offload = number() != 0;
    else if (key == "nodes")
      l.node_limit = number();
    else if (key == "schedule")
      l.schedule = parse_schedule_kind(value), schedule_given = true;
    else if (key == "recompute")
      l.recompute = recompute_of(value);
    else
      fail("layout: unknown key '{}'{}", key, did_you_mean(key, known));
  }
  if (!schedule_given && l.chunks > 1) l.schedule = ScheduleKind::interleaved;
  const int others = std::max(1, l.tensor * l.pipeline * l.context);
  if (!data_given) l.data = std::max(1, base.count / others);
  return l;
}

std::string layout_text(const Layout& l) {
  std::string out = fmt::format("tp={} pp={}", l.tensor, l.pipeline);
  if (l.pipeline > 1) out += " schedule=" + schedule_name(l.schedule);
  if (l.chunks > 1) out += fmt::format(" vpp={}", l.chunks);
  out += fmt::format(" dp={} zero={} mb={}", l.data, l.zero, l.micro_batch);
  if (l.context > 1) out += fmt::format(" cp={}", l.context);
  if (l.expert > 1) out += fmt::format(" ep={}", l.expert);
  if (l.expert_tensor > 1) out += fmt::format(" etp={}", l.expert_tensor);
  if (l.sequence_parallel) out += " sp=1";
  if (l.offload) out += " offload=1";
  if (l.node_limit > 0) out += fmt::format(" nodes={}", l.node_limit);
  if (const std::string r = recompute_name(l.recompute); r != "none") out += " recompute=" + r;
  return out;
}

std::string why_not(const Setup& asked, const Candidate& best, const Constants& k) {
  const std::string name = layout_text(asked.layout);
  if (const std::string problem = layout_problem(asked); !problem.empty())
    return fmt::format("{}\n  not possible: {}\n", name, problem);
  const StepPrediction p = predict_step(asked, k);
  const MemoryUse m = predict_memory(asked, k);
  std::string out = fmt::format("{}\n  {:.3f} s a step, {:.2f} times the best ({:.3f} s); {} of {} memory\n",
                                name, p.seconds, p.seconds / best.step.seconds, best.step.seconds,
                                human_bytes(m.total()), human_bytes(asked.chip.memory_bytes));
  if (m.total() > asked.chip.memory_bytes) {
    const std::pair<const char*, double> terms[] = {{"weights", m.weights},
                                                    {"gradients", m.gradients},
                                                    {"optimizer", m.optimizer},
                                                    {"activations", m.activations},
                                                    {"buffers", m.buffers}};
    const auto* worst = std::max_element(std::begin(terms), std::end(terms),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
    out += fmt::format("  does not fit: {} alone take {}\n", worst->first, human_bytes(worst->second));
  }
  const auto line = [&](const char* term, double mine, double theirs) {
    if (std::abs(mine - theirs) > 0.005 * best.step.seconds)
      out += fmt::format("  {:<12} {:>9.3f} s against {:>9.3f} s\n", term, mine, theirs);
  };
  for (int i = 0; i < term_count; ++i)
    line(term_name(static_cast<Term>(i)), p.time.work.seconds[static_cast<std::size_t>(i)],
         best.step.time.work.seconds[static_cast<std::size_t>(i)]);
  line("bubble", p.time.bubble, best.step.time.bubble);
  line("data", p.time.data, best.step.time.data);
  line("optimizer", p.time.optimizer, best.step.time.optimizer);
  return out;
}

}  // namespace sinew::plan
