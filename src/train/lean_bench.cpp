#include "train/lean_bench.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <thread>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "text/bpe_training.hpp"
#include "text/build_data_set.hpp"
#include "train/run_directory.hpp"

extern char** environ;  // NOLINT: POSIX

namespace sinew {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

std::int64_t steps_of(const LeanOptions& o) {
  return std::max<std::int64_t>(1, o.tokens / (o.batch * o.sequence));
}

double rate_of(const LeanOptions& o, const LeanSize& size) {
  return o.lr * std::sqrt(64 / static_cast<double>(size.hidden));
}

// Text becomes a data set under `out`, whole documents (files, up to 1 MiB) held out.
fs::path prepare_data(const LeanOptions& o) {
  if (o.data.size() == 1 && is_data_set(o.data[0])) return fs::absolute(o.data[0]);
  const fs::path tokenizer = o.out / "tokenizer.json";
  DataSetOptions options;
  options.inputs = o.data;
  options.tokenizer = tokenizer;
  options.out = o.out / "data";
  options.val_fraction = 0.01;
  options.documents.separator = "file";
  make_directories(o.out);
  if (!fs::exists(tokenizer)) {
    BpeTrainingOptions bpe;
    bpe.vocab_size = o.vocabulary;
    train_tokenizer(o.data, bpe, options.documents.field, tokenizer);
  }
  build_data_set(options);
  return fs::absolute(options.out);
}

fs::path result_path(const LeanOptions& o, const LeanRun& run) {
  return o.out / "results" / (run.name() + ".json");
}

std::optional<LeanResult> read_result(const LeanOptions& o, const LeanRun& run, std::int64_t vocabulary) {
  const fs::path path = result_path(o, run);
  if (!fs::exists(path)) return std::nullopt;
  const auto json = Json::parse(read_file(path, 1 << 20), nullptr, false);
  LeanResult result{.run = run,
                    .counts = count_lean(lean_model(run.kind, run.size, vocabulary, o.sequence), o.sequence),
                    .tokens = steps_of(o) * o.batch * o.sequence};
  try {
    result.loss = json.at("loss").get<double>();
    result.bits_per_byte = json.at("bits_per_byte").get<double>();
    result.seconds = json.at("seconds").get<double>();
  } catch (const Json::exception&) {
    fail("{}: damaged; remove it and run the bench again", path.string());
  }
  return result;
}

// The last whole line of metrics.jsonl, or an empty object.
Json last_metrics(const fs::path& run) {
  std::ifstream file(run / "metrics.jsonl");
  Json last = Json::object();
  for (std::string line; std::getline(file, line);) {
    auto json = Json::parse(line, nullptr, false);
    if (json.is_object()) last = std::move(json);
  }
  return last;
}

// One child process.
class Child {
 public:
  Child(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
        const fs::path& log) {
    std::vector<char*> argv, envp;
    for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    for (const auto& e : environment)
      envp.push_back(const_cast<char*>(e.c_str()));  // the first of a name counts
    for (char** e = environ; *e != nullptr; ++e) envp.push_back(*e);
    envp.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) throw Error(fmt::format("cannot start {}: {}", arguments[0], system_reason()));
    if (pid_ > 0) return;
    ::setpgid(0, 0);  // what the terminal sends reaches the bench alone, which passes it on once
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) {
      ::dup2(fd, 1);
      ::dup2(fd, 2);
    }
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGTERM);
      int status = 0;
      while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
      }
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void stop(int signal) const { ::kill(pid_, signal); }
  // Its exit code once it has ended.
  std::optional<int> ended() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) <= 0) return std::nullopt;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

class Bench {
 public:
  explicit Bench(const LeanOptions& options) : o_(options), data_(prepare_data(options)) {
    vocabulary_ = read_data_set(data_).vocab_size;
    make_directories(o_.out / "results");
    make_directories(o_.out / "runs");
    for (const auto& run : lean_runs(o_)) {
      const double work = work_of(run);
      total_ += work;
      if (read_result(o_, run, vocabulary_))
        done_ += work, ++finished_;
      else
        waiting_.push_back(run);
    }
    runs_ = finished_ + waiting_.size();
    before_ = done_;
    std::reverse(waiting_.begin(), waiting_.end());  // taken from the end
  }

  std::vector<LeanResult> results() {
    int passed_on = 0;
    while (!waiting_.empty() || !running_.empty()) {
      const int signal = stop_requested();
      while (signal == 0 && problem_.empty() && !waiting_.empty() &&
             running_.size() < static_cast<std::size_t>(o_.jobs)) {
        start(waiting_.back());
        waiting_.pop_back();
      }
      if ((signal != 0 || !problem_.empty()) && passed_on == 0) {
        passed_on = signal != 0 ? signal : SIGTERM;
        for (const auto& r : running_) r.child->stop(passed_on);
      }
      look();
      if (running_.empty() && (signal != 0 || !problem_.empty())) break;
      say();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    clear_line();
    if (!problem_.empty()) throw Error(problem_);
    if (const int signal = stop_requested(); signal != 0)
      throw Interrupted(
          fmt::format("stopped with {} of {} runs finished, the others saved; the same command goes on",
                      finished_, runs_),
          signal);
    std::vector<LeanResult> all;
    for (const auto& run : lean_runs(o_)) all.push_back(read_result(o_, run, vocabulary_).value());
    return all;
  }

 private:
  struct Running {
    LeanRun run;
    std::unique_ptr<Child> child;
    Clock::time_point start;
    double share = 0;  // of its steps
  };

  double work_of(const LeanRun& run) const {
    return count_lean(lean_model(run.kind, run.size, vocabulary_, o_.sequence), o_.sequence).flops_per_token;
  }
  fs::path folder(const LeanRun& run) const { return o_.out / "runs" / run.name(); }

  void start(const LeanRun& run) {
    const fs::path config = o_.out / "runs" / (run.name() + ".json"),
                   log = o_.out / "runs" / (run.name() + ".log");
    write_file_atomic(config, write_model_config(lean_model(run.kind, run.size, vocabulary_, o_.sequence)));
    const std::int64_t steps = steps_of(o_);
    std::vector<std::string> arguments{o_.program.string(), "train",    "--out", folder(run).string(),
                                       "--no-plan",         "--device", "cpu"};
    if (holds_run(folder(run))) arguments.emplace_back("--resume");
    for (const auto& set :
         {"model.config=" + fs::absolute(config).string(), "data.path=" + data_.string(),
          fmt::format("data.sequence={}", o_.sequence), fmt::format("train.steps={}", steps),
          fmt::format("train.batch={}", o_.batch), fmt::format("train.seed={}", run.seed),
          "train.dtype=" + o_.dtype, fmt::format("optimizer.lr={}", rate_of(o_, run.size)),
          fmt::format("schedule.warmup={}", steps / 20), std::string("eval.batches=0"),
          std::string("eval.sample_tokens=1"), std::string("log.tensorboard=false"),
          std::string("log.every=10"), std::string("checkpoint.keep_last=1"),
          fmt::format("checkpoint.every={}", std::max<std::int64_t>(1, steps / 4))}) {
      arguments.emplace_back("--set");
      arguments.push_back(set);
    }
    // Threads that spin at barriers would take the cores from the run beside.
    const std::vector<std::string> environment{fmt::format("SINEW_THREADS={}", o_.threads),
                                               fmt::format("OMP_NUM_THREADS={}", o_.threads),
                                               "OMP_WAIT_POLICY=passive"};
    running_.push_back({run, std::make_unique<Child>(arguments, environment, log), Clock::now()});
  }

  void look() {
    for (auto r = running_.begin(); r != running_.end();) {
      const auto code = r->child->ended();
      if (!code) {
        ++r;
        continue;
      }
      if (*code == 0)
        finish(*r);
      else if (stop_requested() == 0 && problem_.empty())
        problem_ = fmt::format("{}: exit code {}: {}", r->run.name(), *code,
                               last_line(o_.out / "runs" / (r->run.name() + ".log")));
      r = running_.erase(r);
    }
  }

  void finish(const Running& r) {
    const Json last = last_metrics(folder(r.run));
    if (!last.contains("val_loss") || !last["val_loss"].is_number()) {
      problem_ = fmt::format("{}: no validation loss: the data set holds no text out, or the run diverged",
                             r.run.name());
      return;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - r.start).count();
    const LeanCounts counts =
        count_lean(lean_model(r.run.kind, r.run.size, vocabulary_, o_.sequence), o_.sequence);
    const Json json{{"run", r.run.name()},
                    {"kind", lean_name(r.run.kind)},
                    {"size", r.run.size.name()},
                    {"seed", r.run.seed},
                    {"parameters", counts.total},
                    {"active_without_embedding", counts.active},
                    {"flops_per_token", counts.flops_per_token},
                    {"tokens", steps_of(o_) * o_.batch * o_.sequence},
                    {"loss", last["val_loss"]},
                    {"bits_per_byte", last.value("val_bits_per_byte", 0.0)},
                    {"seconds", seconds}};
    write_file_atomic(result_path(o_, r.run), json.dump(2) + "\n");
    // What is of no more use and large; metrics.jsonl and config.toml stay.
    std::error_code ignored;
    for (const char* name : {"checkpoints", "model"}) fs::remove_all(folder(r.run) / name, ignored);
    done_ += work_of(r.run);
    ++finished_;
    clear_line();
    fmt::print(stderr, "{:>3}/{}  {:<18} {:.4f} nats a token, {:.4f} bits per byte ({})\n", finished_, runs_,
               r.run.name(), json["loss"].get<double>(), json["bits_per_byte"].get<double>(),
               human_seconds(seconds));
  }

  void clear_line() const {
    if (terminal_) fmt::print(stderr, "\r\033[K");
  }

  void say() {
    const auto now = Clock::now();
    if (running_.empty() || now - said_ < std::chrono::seconds(terminal_ ? 2 : 60)) return;
    said_ = now;
    double work = done_;
    std::string names;
    for (auto& r : running_) {
      const Json last = last_metrics(folder(r.run));
      r.share = last.value("step", 0.0) / static_cast<double>(steps_of(o_));
      work += r.share * work_of(r.run);
      names += fmt::format("{}{} {:.0f} %", names.empty() ? "" : ", ", r.run.name(), 100 * r.share);
    }
    const double elapsed = std::chrono::duration<double>(now - began_).count();
    const double fresh = work - before_;
    const std::string left =
        fresh > 0 ? human_seconds(elapsed * (total_ - work) / fresh) + " left" : std::string("starting");
    fmt::print(stderr, "{}{}/{} runs, {:.0f} % of the work, {}: {}{}", terminal_ ? "\r\033[K" : "", finished_,
               runs_, 100 * work / total_, left, names, terminal_ ? "" : "\n");
    std::fflush(stderr);
  }

  LeanOptions o_;
  fs::path data_;
  std::int64_t vocabulary_ = 0;
  std::vector<LeanRun> waiting_;
  std::vector<Running> running_;
  std::size_t finished_ = 0, runs_ = 0;
  double total_ = 0, done_ = 0, before_ = 0;
  std::string problem_;
  const bool terminal_ = ::isatty(2) == 1;
  const Clock::time_point began_ = Clock::now();
  Clock::time_point said_{};
};

void check(const LeanOptions& o) {
  require(!o.data.empty(), "no text to train on: name files or folders with --data");
  require(!o.kinds.empty() && !o.sizes.empty(), "nothing to train: give kinds and sizes");
  for (const auto& path : o.data) require(fs::exists(path), "{}: no such file or folder", path.string());
  require(o.tokens >= o.batch * o.sequence, "--tokens {} is less than one batch of {} x {}", o.tokens,
          o.batch, o.sequence);
  const fs::path file = o.out / "bench.json";
  if (!fs::exists(file)) return;
  const auto before = Json::parse(read_file(file, 1 << 20), nullptr, false);
  const Json now = lean_settings(o);
  require(before.is_object(), "{}: damaged; choose another --out", file.string());
  for (const auto& [key, value] : now.items())
    require(before.contains(key) && before[key] == value,
            "{}: its runs were made with {} = {}, not {}: choose another --out", o.out.string(), key,
            before.contains(key) ? before[key].dump() : "nothing", value.dump());
}

}  // namespace

std::string LeanRun::name() const { return fmt::format("{}-{}-s{}", lean_name(kind), size.name(), seed); }

std::vector<LeanRun> lean_runs(const LeanOptions& o) {
  std::vector<LeanRun> all;
  const auto add = [&](LeanKind kind, const LeanSize& size, std::int64_t seed) {
    const bool twice = std::any_of(all.begin(), all.end(), [&](const LeanRun& r) {
      return r.kind == kind && r.size == size && r.seed == seed;
    });
    if (!twice) all.push_back({kind, size, seed});
  };
  for (std::int64_t seed = 1; seed <= o.seeds; ++seed) {
    const std::size_t first = all.size();
    for (const LeanKind kind : o.kinds) {
      for (const auto& size : o.sizes) add(kind, size, seed);
      if (kind == LeanKind::dense)
        for (const auto& size : o.dense_sizes) add(kind, size, seed);
    }
    const auto work = [](const LeanRun& r) { return r.size.hidden * r.size.hidden * r.size.layers; };
    std::stable_sort(all.begin() + static_cast<std::ptrdiff_t>(first), all.end(),
                     [&](const LeanRun& a, const LeanRun& b) { return work(a) > work(b); });
  }
  return all;
}

nlohmann::ordered_json lean_settings(const LeanOptions& o) {
  std::vector<std::string> data;
  for (const auto& path : o.data) data.push_back(fs::absolute(path).lexically_normal().string());
  return {{"data", data},     {"tokens", o.tokens},         {"sequence", o.sequence},
          {"batch", o.batch}, {"vocabulary", o.vocabulary}, {"learning_rate_at_64", o.lr},
          {"dtype", o.dtype}};
}

std::vector<LeanResult> lean_bench(const LeanOptions& options) {
  check(options);
  make_directories(options.out);
  write_file_atomic(options.out / "bench.json", lean_settings(options).dump(2) + "\n");
  catch_stop_signals();
  return Bench(options).results();
}

std::vector<LeanResult> finished_lean_results(const LeanOptions& o) {
  check(o);
  const fs::path data = o.data.size() == 1 && is_data_set(o.data[0]) ? o.data[0] : o.out / "data";
  const std::int64_t vocabulary = read_data_set(data).vocab_size;
  std::vector<LeanResult> found;
  for (const auto& run : lean_runs(o))
    if (auto result = read_result(o, run, vocabulary)) found.push_back(*result);
  return found;
}

}  // namespace sinew
