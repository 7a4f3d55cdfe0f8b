#include "plan/failures.hpp"

#include <algorithm>
#include <cmath>
#include <queue>

#include "base/error.hpp"
#include "base/random.hpp"
#include "base/threads.hpp"

namespace sinew::plan {
namespace {

// Wall time over work for intervals of `tau` s with checkpoints of `delta` s, failures at `rate` a second and
// restarts of `restart` s (Daly 2006, equation 13, exact for exponential failures).
double stretch(double rate, double restart, double delta, double tau) {
  if (rate <= 0) return (tau + delta) / tau;
  return std::exp(std::min(700.0, rate * restart)) * std::expm1(std::min(700.0, rate * (tau + delta))) /
         (rate * tau);
}

double golden(double low, double high, const auto& f) {
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double a = std::log(low), b = std::log(high);
  double c = b - ratio * (b - a), d = a + ratio * (b - a);
  double fc = f(std::exp(c)), fd = f(std::exp(d));
  for (int i = 0; i < 80; ++i) {
    if (fc < fd) {
      b = d, d = c, fd = fc, c = b - ratio * (b - a), fc = f(std::exp(c));
    } else {
      a = c, c = d, fc = fd, d = a + ratio * (b - a), fd = f(std::exp(d));
    }
  }
  return std::exp((a + b) / 2);
}

// The two kinds of failure a second: recovered from memory, and from storage.
struct Rates {
  double memory, storage;
  double all() const { return memory + storage; }
};

Rates rates(const FailureModel& m, double accelerators) {
  const double all = failures_per_hour(m, accelerators) / 3600;
  const double share = m.in_memory ? std::clamp(m.memory_share, 0.0, 1.0) : 0;
  return {all * share, all * (1 - share)};
}

// Wall over work with both levels: the memory level is exact in itself, and stretches the time that the
// storage level works in; a failure of either kind during a restart starts it over.
double two_level(const FailureModel& m, const Rates& r, double tau) {
  if (!m.in_memory) return stretch(r.storage, m.recovery(), m.checkpoint, tau);
  const double inner = stretch(r.memory, m.memory_restart, m.memory_checkpoint, m.memory_interval);
  return inner * stretch(r.storage, m.recovery() / inner, m.checkpoint / inner, tau);
}

}  // namespace

std::vector<ComponentRate> default_components() {
  // The Llama 3 Herd of Models, table 5: 419 interruptions of 16,384 H100 in 54 days, 19.73 a million
  // accelerator-hours.
  const double hours = 16384.0 * 54 * 24 / 1e6;
  const std::pair<const char*, int> counts[] = {{"accelerator", 148},
                                                {"accelerator memory", 72},
                                                {"software", 54},
                                                {"switches and cables", 35},
                                                {"host maintenance", 32},
                                                {"accelerator SRAM and processor", 36},
                                                {"network card", 7},
                                                {"collective time-out", 7},
                                                {"silent data corruption", 6},
                                                {"other", 22}};
  std::vector<ComponentRate> list;
  for (const auto& [name, count] : counts) list.push_back({name, count / hours});
  return list;
}

FailureModel default_failures() {
  FailureModel m;
  m.components = default_components();
  return m;
}

double failures_per_hour(const FailureModel& m, double accelerators) {
  double sum = 0;
  for (const ComponentRate& c : m.components) {
    require(c.per_million_hours >= 0, "failures: the rate of {} is negative", c.name);
    sum += c.per_million_hours;
  }
  return sum / 1e6 * accelerators;
}

double best_interval(const FailureModel& m, double accelerators) {
  const Rates r = rates(m, accelerators);
  if (r.storage <= 0) return 24 * 3600;
  return golden(1, 30 * 24 * 3600.0, [&](double tau) { return two_level(m, r, tau); });
}

Goodput goodput_formula(const FailureModel& m, double accelerators, double work) {
  require(accelerators > 0 && work >= 0 && m.checkpoint >= 0 && m.recovery() >= 0,
          "failures: times and counts must not be negative");
  const Rates r = rates(m, accelerators);
  Goodput g;
  g.interval = m.interval > 0 ? m.interval : best_interval(m, accelerators);
  const double wall = two_level(m, r, g.interval);
  require(wall < 1e6,
          "failures: one every {:.3g} s and {:.3g} s to recover: the run never ends; recover faster or use "
          "fewer accelerators",
          1 / r.all(), m.recovery());
  g.share = 1 / wall;
  g.failures = r.all() * work * wall;
  g.mtbf_hours = r.all() > 0 ? 1 / r.all() / 3600 : INFINITY;
  g.checkpoint_loss =
      (m.checkpoint / g.interval + (m.in_memory ? m.memory_checkpoint / m.memory_interval : 0)) * g.share;
  // A restart that a failure cuts short counts for the time it had.
  const auto in_restart = [&](double rate, double restart) {
    return rate > 0 ? rate / r.all() * -std::expm1(-r.all() * restart) : 0;
  };
  g.restart_loss = in_restart(r.storage, m.recovery()) + in_restart(r.memory, m.memory_restart);
  g.rework_loss = std::max(0.0, 1 - g.share - g.checkpoint_loss - g.restart_loss);
  return g;
}

namespace {

// One run, failure by failure.
class Trial {
 public:
  Trial(const FailureModel& m, double accelerators, double work, std::uint64_t seed, std::uint64_t trial,
        int spares)
      : m_(m),
        rates_(rates(m, accelerators)),
        work_(work),
        random_(seed, trial),
        spares_(spares),
        tau_(m.interval > 0 ? m.interval : best_interval(m, accelerators)) {
    next_ = draw();
  }

  void run() {
    // `kept` work is in the last storage checkpoint, `copied` in the last memory one; each holds what the
    // other level may lose.
    double kept = 0, copied = 0, done = 0;
    while (done < work_) {
      const double to_storage = kept + tau_ - done;
      const double to_memory = m_.in_memory ? copied + m_.memory_interval - done : 1e300;
      const double chunk = std::min({to_storage, to_memory, work_ - done});
      const bool store = chunk >= to_storage * (1 - 1e-12), copy = chunk >= to_memory * (1 - 1e-12);
      const double pause = (store ? m_.checkpoint : 0) + (copy ? m_.memory_checkpoint : 0);
      if (now_ + chunk + pause <= next_) {
        now_ += chunk + pause;
        done += chunk;
        if (store) kept = done;
        if (copy || store) copied = done;
        continue;
      }
      now_ = next_;
      done = fail() ? copied : (copied = kept);
    }
  }

  double share() const { return work_ / now_; }
  double failures() const { return failures_; }
  double waiting() const { return waiting_ / now_; }

 private:
  double draw() {
    return rates_.all() > 0 ? now_ - std::log(1 - random_.uniform(index_++)) / rates_.all() : 1e300;
  }

  // A failure at now_: restarts until one succeeds. True when memory alone was needed.
  bool fail() {
    bool memory = true;
    do {
      ++failures_;
      if (random_.uniform(index_++) * rates_.all() >= rates_.memory) memory = false;
      replace_node();
      const double restart = memory ? m_.memory_restart : m_.recovery();
      next_ = draw();
      if (now_ + restart <= next_) {
        now_ += restart;
        return memory;
      }
      now_ = next_;
    } while (true);
  }

  // A failed node goes to repair; without a spare the job waits for the first one back.
  void replace_node() {
    if (spares_ < 0 || random_.uniform(index_++) >= m_.hardware_share) return;
    while (!repairs_.empty() && repairs_.top() <= now_) repairs_.pop();
    repairs_.push(now_ + m_.repair_hours * 3600);
    if (static_cast<int>(repairs_.size()) > spares_) {
      waiting_ += repairs_.top() - now_;
      now_ = repairs_.top();
      repairs_.pop();
    }
  }

  const FailureModel& m_;
  Rates rates_;
  double work_;
  Random random_;
  int spares_;
  double tau_;
  double now_ = 0, next_ = 0, failures_ = 0, waiting_ = 0;
  std::uint64_t index_ = 0;
  std::priority_queue<double, std::vector<double>, std::greater<>> repairs_;
};

}  // namespace

MonteCarlo goodput_monte_carlo(const FailureModel& m, double accelerators, double work, int trials,
                               std::uint64_t seed, int spares) {
  require(trials > 0, "failures: at least one trial");
  goodput_formula(m, accelerators, work);  // refuses runs that never end
  struct Outcome {
    double share, failures, waiting;
  };
  std::vector<Outcome> outcomes(static_cast<std::size_t>(trials));
  parallel_for(outcomes.size(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Trial trial(m, accelerators, work, seed, i, spares);
      trial.run();
      outcomes[i] = {trial.share(), trial.failures(), trial.waiting()};
    }
  });
  MonteCarlo result;
  result.trials = trials;
  double wall = 0, square = 0;
  for (const Outcome& o : outcomes) {
    wall += 1 / o.share;
    square += o.share * o.share;
    result.share += o.share / trials;
    result.failures += o.failures / trials;
    result.waiting += o.waiting / trials;
  }
  result.deviation = std::sqrt(std::max(0.0, square / trials - result.share * result.share));
  result.share = trials / wall;  // of all time, as the formula counts
  return result;
}

int spares_needed(const FailureModel& m, double accelerators, double probability) {
  // Nodes in repair are Poisson distributed with mean rate x repair time (Palm).
  const double mean = failures_per_hour(m, accelerators) * m.hardware_share * m.repair_hours;
  if (mean > 1e4) return static_cast<int>(std::ceil(mean + 2.33 * std::sqrt(mean)));
  double term = std::exp(-mean), sum = term;
  int n = 0;
  while (sum < probability && n < 1000000) {
    ++n;
    term = mean > 700 ? 0 : term * mean / n;
    if (mean > 700) return static_cast<int>(std::ceil(mean + 2.33 * std::sqrt(mean)));
    sum += term;
  }
  return n;
}

}  // namespace sinew::plan
