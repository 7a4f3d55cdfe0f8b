#include "train/layout_table.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "config/model_config.hpp"
#include "storage/checkpoint.hpp"
#include "text/bpe_training.hpp"
#include "text/build_data_set.hpp"
#include "train/run_directory.hpp"

extern char** environ;  // NOLINT: POSIX

namespace sinew {
namespace {

// Eight layers, so that four ranks can hold two stages each; four heads; eight experts.
ModelConfig network(const std::string& name) {
  ModelConfig c;
  c.vocab_size = 304;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 8;
  c.max_position_embeddings = 64;
  c.initializer_range = 0.08;
  c.num_attention_heads = c.num_key_value_heads = 4;
  c.moe.n_routed_experts = 8;
  c.moe.num_experts_per_tok = 2;
  c.moe.moe_intermediate_size = 16;
  if (name == "mixtral") {
    c.model_type = name;
    c.num_key_value_heads = 2;
    c.head_dim = 8;
    c.intermediate_size = c.moe.moe_intermediate_size = 32;
    c.moe.norm_topk_prob = true;
    c.moe.aux_loss_alpha = 0.02;
    return c;
  }
  c.model_type = "deepseek_v2";
  c.attention = Attention::mla;
  c.rope_layout = RopeLayout::interleaved;
  c.q_lora_rank = 24;
  c.kv_lora_rank = 16;
  c.qk_nope_head_dim = c.qk_rope_head_dim = c.v_head_dim = 8;
  c.moe.n_shared_experts = 1;
  c.moe.first_k_dense_replace = 1;
  c.moe.n_group = 4;
  c.moe.topk_group = 2;
  c.moe.topk_method = TopkMethod::group_limited_greedy;
  c.moe.aux_loss_alpha = 0.003;
  if (name == "deepseek-v2") return c;
  c.model_type = "deepseek_v3";
  c.moe.scoring_func = ScoringFunc::sigmoid;
  c.moe.topk_method = TopkMethod::noaux_tc;
  c.moe.n_group = 2;
  c.moe.topk_group = 1;
  c.moe.norm_topk_prob = true;
  c.moe.routed_scaling_factor = 2.5;
  c.num_nextn_predict_layers = 1;
  return c;
}

std::int64_t seed_without_ties(const std::string& model) { return model == "deepseek-v3" ? 2 : 1; }

std::string made_up_text() {
  const std::vector<std::string> words{"sea", "stone", "wind",  "river", "the",   "a",
                                       "of",  "and",   "sings", "falls", "rises", "slowly"};
  std::string text;
  std::uint32_t state = 12345;
  for (int word = 0; word < 24000; ++word) {
    state = state * 1664525u + 1013904223u;
    text += words[(state >> 16) % words.size()];
    text += word % 90 == 89 ? "\n\n" : word % 10 == 9 ? ".\n" : " ";
  }
  return text;
}

fs::path prepare_data(const fs::path& out) {
  const fs::path text = out / "text.txt", tokenizer = out / "tokenizer.json", data = out / "data";
  if (fs::exists(data)) return data;
  make_directories(out);
  write_file_atomic(text, made_up_text());
  BpeTrainingOptions bpe;
  bpe.vocab_size = 300;
  train_tokenizer({text}, bpe, "", tokenizer);
  DataSetOptions options;
  options.inputs = {text};
  options.tokenizer = tokenizer;
  options.out = data;
  options.val_fraction = 0.05;
  build_data_set(options);
  return data;
}

// Runs a program with its output in `log`; its exit code.
int run_program(const std::vector<std::string>& arguments, const std::vector<std::string>& more_environment,
                const fs::path& log) {
  std::vector<char*> argv, envp;
  for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  // The first of two variables of one name counts.
  for (const auto& e : more_environment) envp.push_back(const_cast<char*>(e.c_str()));
  for (char** e = environ; *e != nullptr; ++e) envp.push_back(*e);
  envp.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw Error(fmt::format("cannot start {}", arguments[0]));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct Finished {
  std::vector<double> losses;
  fs::path checkpoint;
};

std::vector<double> losses_of(const fs::path& metrics) {
  std::vector<double> losses;
  std::ifstream file(metrics);
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.contains("loss") && json["loss"].is_number())
      losses.push_back(json["loss"].get<double>());
  }
  return losses;
}

class Table {
 public:
  explicit Table(const LayoutTableOptions& options) : o_(options), data_(prepare_data(options.out)) {}

  LayoutRow row(const std::string& model, const LayoutCase& c) {
    LayoutRow row{.model = model,
                  .layout = c.as_group_of_one ? "a group of one" : join(c.layout, " "),
                  .processes = c.processes};
    try {
      const Finished& want = reference(model, c.small_micro_batches);
      compare(train(model, c), want, row);
    } catch (const Error& error) {
      row.problem = error.what();
    }
    return row;
  }

 private:
  const Finished& reference(const std::string& model, bool small) {
    auto& found = references_[{model, small}];
    if (found.losses.empty())
      found = train(model, {.processes = 1, .layout = {}, .small_micro_batches = small});
    return found;
  }

  Finished train(const std::string& model, const LayoutCase& c) const {
    const fs::path config = o_.out / (model + ".json");
    write_file_atomic(config, write_model_config(network(model)));
    std::string name = fmt::format("{}-{}-{}", model, c.processes, c.small_micro_batches ? 2 : 8);
    for (const auto& setting : c.layout) name += "-" + setting;
    if (c.as_group_of_one) name += "-group-of-one";
    const fs::path run = o_.out / name, log = o_.out / (name + ".log");
    const bool reference = c.processes == 1 && c.layout.empty() && !c.as_group_of_one;
    std::vector<std::string> arguments{
        o_.program.string(), "train",     "--out",    run.string(),
        "--overwrite",       "--no-plan", "--device", reference ? "cpu" : o_.device};
    if (c.processes > 1) arguments.insert(arguments.end(), {"--ranks", std::to_string(c.processes)});
    std::vector<std::string> sets{
        "model.config=" + config.string(),
        "data.path=" + data_.string(),
        "data.sequence=32",
        "train.batch=16",
        fmt::format("train.micro_batch={}", c.small_micro_batches ? 2 : 8),
        fmt::format("train.steps={}", o_.steps),
        fmt::format("train.seed={}", o_.seed > 0 ? o_.seed : seed_without_ties(model)),
        "optimizer.lr=0.002",
        "schedule.warmup=5",
        "eval.batches=1",
        "eval.sample_tokens=1",
        "log.every=1",
        "log.tensorboard=false",
        "layout.timeout=120"};
    for (const auto& setting : c.layout) sets.push_back("layout." + setting);
    for (const auto& set : sets) arguments.insert(arguments.end(), {"--set", set});
    // One thread each: many processes share the cores, and threads that wait for each other would crawl.
    std::vector<std::string> environment{"SINEW_THREADS=1", "OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=passive"};
    if (c.as_group_of_one)
      environment.insert(environment.end(), {"RANK=0", "WORLD_SIZE=1", "MASTER_PORT=29517"});
    const int code = run_program(arguments, environment, log);
    if (code != 0) throw Error(fmt::format("exit code {}: {}", code, last_line(log)));
    return {.losses = losses_of(run / "metrics.jsonl"),
            .checkpoint = checkpoint_path(run / "checkpoints", o_.steps)};
  }

  static void compare(const Finished& got, const Finished& want, LayoutRow& row) {
    if (got.losses.size() != want.losses.size())
      throw Error(fmt::format("{} steps instead of {}", got.losses.size(), want.losses.size()));
    for (std::size_t i = 0; i < want.losses.size(); ++i)
      row.loss_difference =
          std::max(row.loss_difference, std::abs(got.losses[i] - want.losses[i]) / std::abs(want.losses[i]));
    const CheckpointReader a(got.checkpoint), b(want.checkpoint);
    std::vector<float> x, y;
    for (const auto& tensor : b.tensors()) {
      if (!tensor.name.starts_with("weight/")) continue;
      const CheckpointTensor* const other = a.find(tensor.name);
      if (other == nullptr || other->shape != tensor.shape)
        throw Error(fmt::format("{} is missing in the checkpoint", tensor.name));
      std::size_t count = 1;
      for (const auto n : tensor.shape) count *= static_cast<std::size_t>(n);
      x.resize(count);
      y.resize(count);
      a.read_all(*other, reinterpret_cast<std::byte*>(x.data()));
      b.read_all(tensor, reinterpret_cast<std::byte*>(y.data()));
      for (std::size_t i = 0; i < count; ++i)
        row.parameter_difference =
            std::max(row.parameter_difference, static_cast<double>(std::abs(x[i] - y[i])));
    }
  }

  LayoutTableOptions o_;
  fs::path data_;
  std::map<std::pair<std::string, bool>, Finished> references_;
};

}  // namespace

const std::vector<LayoutCase>& layout_cases() {
  static const std::vector<LayoutCase> cases{
      {.processes = 1, .layout = {}, .as_group_of_one = true},
      {2, {"data=2"}},
      {8, {"data=8"}},
      {2, {"shard=2", "zero=1"}},
      {4, {"shard=4", "zero=2"}},
      {4, {"shard=4", "zero=3"}},
      {8, {"shard=8"}},
      {4, {"data=2", "shard=2"}},
      {8, {"data=2", "shard=4", "zero=2", "expert=4"}},
      {2, {"expert=2"}},
      {4, {"expert=4"}},
      {8, {"expert=8"}},
      {8, {"shard=8", "expert=8"}},
      {8, {"shard=8", "expert=2"}},
      {8, {"expert=8", "ranks_per_node=4", "node_limit=2"}},
      {2, {"tensor=2"}},
      {4, {"tensor=2", "expert=2"}},
      {8, {"tensor=2", "shard=4", "expert=4"}},
      {2, {"context=2"}},
      {4, {"context=4"}},
      {8, {"context=2", "tensor=2", "expert=8"}},
      {2, {"pipeline=2", "schedule=gpipe"}, true},
      {4, {"pipeline=4", "schedule=1f1b"}, true},
      {4, {"pipeline=4", "schedule=interleaved", "chunks=2"}, true},
      {4, {"pipeline=4", "schedule=zero-bubble"}, true},
      {4, {"pipeline=4", "schedule=dualpipe-v"}, true},
      {8, {"tensor=2", "pipeline=2", "expert=2"}, true},
      {8, {"pipeline=2", "shard=2", "zero=1", "expert=4", "tensor=2"}, true},
      {8, {"pipeline=2", "context=2", "tensor=2"}, true},
      {8, {"pipeline=4", "schedule=zero-bubble", "expert=2"}, true},
      {4, {"pipeline=2", "shard=2", "zero=3"}, true},
      {8, {"pipeline=2", "shard=2", "zero=2", "tensor=2", "schedule=zero-bubble"}, true},
      {4, {"pipeline=4", "schedule=gpipe-flush"}, true},
  };
  return cases;
}

const std::vector<std::string>& layout_models() {
  static const std::vector<std::string> models{"deepseek-v2", "deepseek-v3", "mixtral"};
  return models;
}

std::vector<LayoutRow> layout_table(const LayoutTableOptions& options,
                                    const std::function<void(const LayoutRow&)>& each) {
  Table table(options);
  std::vector<LayoutRow> rows;
  for (const auto& model : options.models) {
    for (std::size_t i = 0; i < layout_cases().size(); ++i) {
      const auto& wanted = options.cases;
      if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), i) == wanted.end()) continue;
      rows.push_back(table.row(model, layout_cases()[i]));
      each(rows.back());
    }
  }
  return rows;
}

std::string layout_markdown(const std::vector<LayoutRow>& rows, std::int64_t steps) {
  std::string out = fmt::format(
      "| model | processes | layout | largest difference of a loss in {} steps, relative | of a parameter "
      "after "
      "them |\n|---|---|---|---|---|\n",
      steps);
  for (const auto& row : rows)
    out += row.problem.empty()
               ? fmt::format("| {} | {} | {} | {:.1e} | {:.1e}{} |\n", row.model, row.processes, row.layout,
                             row.loss_difference, row.parameter_difference, row.same() ? "" : " **differs**")
               : fmt::format("| {} | {} | {} | {} | |\n", row.model, row.processes, row.layout, row.problem);
  return out;
}

}  // namespace sinew
