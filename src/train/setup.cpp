#include "train/setup.hpp"

#include <utility>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "model/balance.hpp"
#include "ops/device.hpp"
#include "text/dataset.hpp"

namespace sinew {
namespace {

BalanceOptions balance_options(const RunConfig::Balance& b, const ModelConfig& model) {
  BalanceOptions o;
  const bool joint = model.model_type == "mixtral" || model.model_type == "qwen3_moe";
  if (b.expert_alpha >= 0) {
    o.expert_alpha = b.expert_alpha;
  } else {
    (joint ? o.joint_alpha : o.expert_alpha) = model.moe.aux_loss_alpha;
  }
  o.sequence_wise = b.scope == "model" ? model.moe.seq_aux : b.scope == "sequence";
  o.device_alpha = b.device_alpha;
  o.communication_alpha = b.communication_alpha;
  o.device_groups = b.device_groups;
  o.device_limit = b.device_limit;
  o.z_alpha = b.z_alpha;
  o.capacity_factor = b.capacity_factor;
  o.mtp_weight = b.mtp_weight;
  if (model.moe.n_routed_experts > 0) check_balance(o, model);
  return model.moe.n_routed_experts > 0 ? o : BalanceOptions{};
}

// The data sets' tokenizer, which must be one and the same.
void read_tokenizer(TrainingSetup& setup) {
  const auto& paths = setup.config.data.path;
  const DataSetInfo first = read_data_set(paths[0]);
  for (const auto& path : paths) {
    require(read_data_set(path).tokenizer_checksum == first.tokenizer_checksum,
            "{} and {} were made with different tokenizers; make both with one", paths[0], path);
  }
  const fs::path file = fs::path(paths[0]) / first.tokenizer,
                 beside = fs::path(paths[0]) / "tokenizer_config.json";
  setup.tokenizer = load_tokenizer(file);
  setup.tokenizer_files[first.tokenizer] = read_file(file);
  if (fs::exists(beside)) setup.tokenizer_files["tokenizer_config.json"] = read_file(beside);
}

void open_data(TrainingSetup& setup) {
  const auto& c = setup.config;
  LoaderOptions train{.sources = {},
                      .split = Split::train,
                      .sequence = c.data.sequence,
                      .seed = static_cast<std::uint64_t>(c.train.seed)};
  LoaderOptions validation = train;
  validation.split = Split::validation;
  for (std::size_t i = 0; i < c.data.path.size(); ++i) {
    const DataSource source{.path = c.data.path[i], .weight = c.data.weights.empty() ? 1 : c.data.weights[i]};
    train.sources.push_back(source);
    if (read_data_set(source.path).validation.tokens > static_cast<std::uint64_t>(c.data.sequence))
      validation.sources.push_back(source);
  }
  setup.train = std::make_unique<Loader>(train);
  if (validation.sources.empty()) {
    log::warn("{}: under {} tokens of held-out text, so there will be no validation loss", c.data.path[0],
              c.data.sequence + 1);
  } else {
    setup.validation = std::make_unique<Loader>(validation);
  }
}

// The layout, checked, with what it left open filled in.
void lay_out(TrainingSetup& setup, std::shared_ptr<Endpoint> endpoint) {
  RunConfig& c = setup.config;
  const std::int64_t processes = endpoint == nullptr ? 1 : endpoint->size();
  const auto& t = c.train;
  require(
      c.layout.micro_batches == 0 || t.micro_batch == 0 || t.micro_batch * c.layout.micro_batches == t.batch,
      "layout.micro_batches = {} x train.micro_batch = {} is not train.batch = {}: leave one of them 0",
      c.layout.micro_batches, t.micro_batch, t.batch);
  Layout wanted = c.layout;
  if (wanted.ranks_per_node == 0 && endpoint != nullptr)
    wanted.ranks_per_node = endpoint->options().ranks_per_node;
  const Layout layout = check_layout(wanted,
                                     {.processes = processes,
                                      .batch = t.batch,
                                      .micro_batch = t.micro_batch,
                                      .sequence = c.data.sequence,
                                      .capacity_factor = c.balance.capacity_factor},
                                     setup.model);
  if (endpoint == nullptr) return;
  require(t.batch_ramp == 0 || layout.replicas() == 1 || t.micro_batch > 0,
          "train.batch_ramp grows the batch by single sequences, which data {} x shard {} processes cannot "
          "share: "
          "set train.micro_batch to a multiple of {}",
          layout.data, layout.shard, layout.replicas());
  if (t.micro_batch == 0 && layout.micro_batches > 1) c.train.micro_batch = t.batch / layout.micro_batches;
  if (endpoint->options().ranks_per_node != layout.ranks_per_node)
    endpoint->set_ranks_per_node(static_cast<int>(layout.ranks_per_node));
  setup.mesh = std::make_shared<Mesh>(std::move(endpoint), layout);
}

}  // namespace

TrainingSetup prepare_training(const RunConfig& config, std::shared_ptr<Endpoint> endpoint) {
  check_run_config(config);
  TrainingSetup setup;
  setup.config = config;
  const std::string& name = config.model.config.empty() ? config.model.init : config.model.config;
  setup.model = load_model_config(name);
  if (!config.model.init.empty() && !config.model.config.empty())
    require(load_model_config(config.model.init) == setup.model,
            "model.init {} is not a model of model.config {}", config.model.init, name);
  require(config.data.sequence <= setup.model.max_position_embeddings,
          "data.sequence is {}, but max_position_embeddings of {} is {}: use shorter sequences",
          config.data.sequence, name, setup.model.max_position_embeddings);
  setup.device = find_device(config.train.device);
  setup.dtype = config.train.dtype == "fp32" ? at::kFloat : at::kBFloat16;
  if (config.train.dtype == "fp8") setup.fp8 = std::make_unique<Fp8Products>();
  setup.balance = balance_options(config.balance, setup.model);
  read_tokenizer(setup);
  open_data(setup);
  const std::int64_t needed = std::max(setup.train->vocab_size(), setup.tokenizer->vocab_size());
  check_vocabulary(needed, setup.model.vocab_size, name);
  lay_out(setup, std::move(endpoint));
  return setup;
}

}  // namespace sinew
