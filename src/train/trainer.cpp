#include "train/trainer.hpp"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "ops/gemm_peak.hpp"
#include "parallel/partition_of.hpp"
#include "parallel/sharding.hpp"
#include "storage/export_checkpoint.hpp"
#include "train/batch.hpp"
#include "train/fault.hpp"
#include "train/guard.hpp"
#include "train/optimizer.hpp"
#include "train/prefetch.hpp"
#include "train/report.hpp"
#include "train/sample.hpp"
#include "train/schedule.hpp"
#include "train/state_io.hpp"
#include "train/step_clock.hpp"
#include "train/step_meter.hpp"

namespace sinew {
namespace {

std::unique_ptr<LanguageModel> build_model(const TrainingSetup& s) {
  std::unique_ptr<LanguageModel> model;
  const Partition partition = s.mesh ? partition_of(s.mesh, s.model, s.config.data.sequence) : Partition{};
  if (s.config.model.init.empty()) {
    model = std::make_unique<LanguageModel>(s.model, s.dtype, s.device,
                                            static_cast<std::uint64_t>(s.config.train.seed), partition);
  } else {
    model = load_model(s.config.model.init, s.dtype, s.device, partition);
  }
  if (s.model.moe.n_routed_experts > 0 || s.model.num_nextn_predict_layers > 0) model->set_balance(s.balance);
  const std::string& recompute = s.config.train.recompute;
  model->set_recompute(recompute == "full"        ? Recompute::full
                       : recompute == "selective" ? Recompute::selective
                                                  : Recompute::none);
  return model;
}

Optimizer build_optimizer(const LanguageModel& model, const RunConfig::Optimizer& options) {
  if (auto sharding = std::dynamic_pointer_cast<Sharding>(model.partition().hooks))
    return {model.parameters(), std::move(sharding), options};
  return {model.parameters(), options};
}

class Trainer {
 public:
  Trainer(TrainingSetup& setup, const RunDirectory& directory)
      : setup_(setup),
        c_(setup.config),
        directory_(directory),
        mesh_(setup.mesh.get()),
        speaks_(mesh_ == nullptr || mesh_->rank() == 0),
        model_(build_model(setup)),
        optimizer_(build_optimizer(*model_, c_.optimizer)),
        guard_(c_.train.spike_factor),
        clock_(directory.trace(), c_.log.trace_steps, mesh_) {}

  TrainingResult run(bool resume) {
    if (resume) resume_from_checkpoint();
    if (speaks_) {
      write_file_atomic(directory_.config(), to_toml(c_));
      reporter_ = std::make_unique<Reporter>(directory_, step_, c_.log.tensorboard);
      introduce();
    }
    start_reading();
    while (step_ < c_.train.steps) {
      take_step();
      if (stop_ != 0 && step_ < c_.train.steps) return stop();
      if (guard_.skipped_in_a_row() >= c_.train.max_skips) roll_back();
    }
    return finish();
  }

 private:
  // Where the run stands.
  void resume_from_checkpoint() {
    const auto reader = open_for_all(directory_.checkpoints(), mesh_);
    if (!reader) {
      log::warn("{}: no checkpoint yet, starting from the first step", directory_.root().string());
      return;
    }
    const TrainingState& state = reader->state();
    const std::string where = reader->path().string();
    require(parse_model_config(reader->text("config.json"), where) == setup_.model,
            "{}: was written for another model than {}", where, c_.model.config);
    require(state.optimizer == c_.optimizer.kind, "{}: was written by optimizer.kind {}, not {}", where,
            state.optimizer, c_.optimizer.kind);
    require(state.tokenizer_checksum == setup_.train->tokenizer_checksum(),
            "{}: was trained on data of another tokenizer", where);
    load_checkpoint(*reader, optimizer_);
    step_ = saved_ = state.step;
    checkpoint_ = reader->path();
    samples_ = state.samples;
    tokens_ = state.tokens;
    rollbacks_ = state.rollbacks;
    guard_.restore({.recent = state.recent_losses, .skipped = state.skipped});
    const auto layout = layout_text();
    log::info("going on from {}{}", where,
              state.layout == layout ? "" : fmt::format(" (layout {} -> {})", state.layout, layout));
  }

  std::string layout_text() const { return layout_name(mesh_ == nullptr ? Layout{} : mesh_->layout()); }

  void introduce() {
    const ParameterCounts counts = count_parameters(setup_.model);
    peak_ = setup_.dtype == at::kBFloat16 ? gemm_peak(setup_.device).bf16 : gemm_peak(setup_.device).fp32;
    if (mesh_ != nullptr) {
      peak_ *= mesh_->size();
      log::info("{} processes: {}", mesh_->size(), layout_text());
    }
    flops_per_token_ = train_flops_per_token(setup_.model, c_.data.sequence);
    log::info(
        "{}: {} parameters, {} active a token; {} on {} ({} threads, matrix products at {:.0f} GFLOP/s)",
        c_.model.config.empty() ? c_.model.init : c_.model.config,
        human_count(static_cast<double>(counts.total)), human_count(static_cast<double>(counts.active)),
        c_.train.dtype, setup_.device.str(), at::get_num_threads(), peak_ / 1e9);
    const std::int64_t spare = setup_.model.vocab_size - setup_.tokenizer->vocab_size();
    if (spare > 0)
      log::info("the model has {} more rows of vocabulary than the tokenizer has tokens: they stay unused",
                spare);
    const double planned =
        static_cast<double>(c_.train.steps) * static_cast<double>(c_.train.batch * c_.data.sequence);
    log::info("{} tokens of text ({} held out); {} steps of up to {} x {} tokens: {:.2f} epochs",
              human_count(static_cast<double>(setup_.train->tokens())),
              setup_.validation ? human_count(static_cast<double>(setup_.validation->tokens())) : "none",
              c_.train.steps, c_.train.batch, c_.data.sequence,
              planned / static_cast<double>(setup_.train->tokens()));
  }

  void start_reading() {
    prefetcher_.reset();
    prefetcher_ = std::make_unique<Prefetcher>(
        *setup_.train, samples_, step_, [this](std::int64_t step) { return batch_size(c_, step); },
        c_.data.prefetch,
        [this](std::int64_t rows) {
          const auto replicas = mesh_ == nullptr ? 1 : mesh_->layout().replicas();
          return rows_of_replica(rows, micro_of(rows), replicas, replicas == 1 ? 0 : mesh_->batch()->rank());
        });
  }

  // Sequences of a micro-batch of a batch of `rows`, all processes together.
  std::int64_t micro_of(std::int64_t rows) const {
    return c_.train.micro_batch == 0 ? rows : c_.train.micro_batch;
  }

  // One step, and whatever is due after it.
  void take_step() {
    const double start = clock_seconds();
    const TokenBatch batch = [&] {
      const Span span(SpanKind::data, "wait for data");
      return prefetcher_->next();
    }();
    const double waited = clock_seconds() - start;
    const std::uint64_t before = tokens_;
    StepReport report = update(batch);
    clock_.end_step();
    meter_.add(tokens_ - before, clock_seconds() - start, waited);
    const bool last = step_ == c_.train.steps;
    const bool log_due = step_ % c_.log.every == 0 || last || !report.skipped.empty();
    stop_ = static_cast<int>(largest(stop_requested()));  // all stop after the same step
    const bool eval_due = (c_.eval.every > 0 && step_ % c_.eval.every == 0) || last;
    const bool sample_due = c_.eval.sample_every > 0 && step_ % c_.eval.sample_every == 0 && !last;
    if (log_due) report.breakdown = clock_.mean_step();
    show(report, log_due);
    Record record = log_due ? to_record(report) : Record{{{"step", step_}}};
    evaluation_.reset();
    if (eval_due && setup_.validation && (stop_ == 0 || last)) evaluate_now(record);
    if (sample_due && stop_ == 0) sample_now();
    if (record.fields.size() > 1 && speaks_) reporter_->write(record);
    if (guard_.skipped_in_a_row() == 0 &&
        (last || (c_.checkpoint.every > 0 && step_ % c_.checkpoint.every == 0)))
      save();
  }

  // Of what the processes have.
  std::int64_t largest(std::int64_t own) const {
    if (mesh_ == nullptr) return own;
    const auto most = at::full({1}, own, at::kLong).to(setup_.device);
    mesh_->world()->all_reduce(most, Reduction::max);
    return most.item<std::int64_t>();
  }

  void fail_on_purpose(std::int64_t number) const {
    if (fault(fmt::format("kill-rank{}", mesh_->rank()), number)) std::raise(SIGKILL);
    if (fault(fmt::format("fail-rank{}", mesh_->rank()), number))
      throw Error(fmt::format("step {}: failed on purpose", number));
  }

  StepReport update(const TokenBatch& batch) {
    StepReport report;
    const std::int64_t number = step_ + 1;
    if (mesh_ != nullptr) fail_on_purpose(number);
    report.lr = learning_rate(c_, step_);
    const std::int64_t rows = batch.rows * (mesh_ == nullptr ? 1 : mesh_->layout().replicas());
    const Span step(SpanKind::compute, "step", number);
    report.loss = forward_backward(*model_, optimizer_, batch, micro_of(rows), c_.data.mask_documents,
                                   setup_.device, mesh_);
    if (fault("nan", number)) report.loss.cross_entropy = std::numeric_limits<double>::quiet_NaN();
    if (fault("spike", number)) report.loss.cross_entropy *= 1000;
    const Span after(SpanKind::optimizer, "update");
    report.gradient_norm = optimizer_.gradient_norm();
    report.skipped = guard_.judge(report.loss.cross_entropy, report.gradient_norm);
    if (report.skipped.empty()) {
      const double clip = c_.optimizer.clip;
      optimizer_.step(report.lr, clip > 0 && report.gradient_norm > clip ? clip / report.gradient_norm : 1);
      if (const double gamma = bias_speed(c_, step_); gamma > 0)
        update_correction_biases(*model_, report.loss.loads, gamma);
    }
    optimizer_.zero_gradients();
    step_ = number;
    samples_ += static_cast<std::uint64_t>(rows);
    tokens_ += static_cast<std::uint64_t>(rows * batch.sequence);
    report.step = step_;
    report.steps = c_.train.steps;
    report.tokens = tokens_;
    report.batch = rows;
    return report;
  }

  // The progress line: in place on a terminal, printed when due.
  void show(StepReport& report, bool due) {
    meter_.fill(report, flops_per_token_, peak_);
    const auto bytes = static_cast<std::int64_t>(resident_bytes());
    report.memory_bytes = static_cast<std::uint64_t>(due ? largest(bytes) : bytes);
    report.planned_seconds = setup_.planned_step_seconds;
    static const bool terminal = ::isatty(2) == 1;
    if (!speaks_) {
      // the others keep their counts alike and say nothing
    } else if (terminal) {
      fmt::print(stderr, "\r\033[K{}{}", progress_line(report), due ? "\n" : "");
    } else if (due) {
      fmt::print(stderr, "{}\n", progress_line(report));
    }
    std::fflush(stderr);
    if (due) meter_.restart();
  }

  void evaluate_now(Record& record) {
    const double start = clock_seconds();
    const std::int64_t rows = c_.train.micro_batch == 0 ? c_.train.batch : c_.train.micro_batch;
    evaluation_ = evaluate(*model_, *setup_.validation, c_.eval.batches * c_.train.batch, rows,
                           c_.data.mask_documents, setup_.device, mesh_);
    if (!evaluation_) return;
    add_evaluation(record, *evaluation_);
    say(fmt::format("step {}: validation loss {:.4f}, {:.4f} bits per byte ({} tokens in {})", step_,
                    evaluation_->loss, evaluation_->bits_per_byte,
                    human_count(static_cast<double>(evaluation_->tokens)),
                    human_seconds(clock_seconds() - start)));
  }

  // Without a prompt a sample begins as documents do: at the beginning token, or after an end of text.
  std::vector<TokenId> sample_prompt() const {
    const Tokenizer& tokenizer = *setup_.tokenizer;
    if (c_.eval.sample_prompt.empty() && !tokenizer.bos() && setup_.model.bos_token_ids.empty())
      return {tokenizer.eos().value_or(0)};
    return prompt_tokens(tokenizer, c_.eval.sample_prompt, setup_.model);
  }

  void sample_now() {
    std::vector<TokenId> ids = sample_prompt();
    GenerateOptions options;
    options.sampling.temperature = c_.eval.sample_temperature;
    options.sampling.seed = static_cast<std::uint64_t>(c_.train.seed + step_);
    options.max_tokens = c_.eval.sample_tokens;
    std::vector<std::int64_t> ends = setup_.model.eos_token_ids;
    if (const auto eos = setup_.tokenizer->eos()) ends.push_back(*eos);
    // Rows of the embedding that no token uses may be chosen by an untrained model; they end the text.
    for (std::int64_t id = setup_.tokenizer->vocab_size(); id < setup_.model.vocab_size; ++id)
      ends.push_back(id);
    const auto written = sample_text(*model_, ids, options, ends, setup_.device, mesh_,
                                     [this](TokenId) { return mesh_ != nullptr || stop_requested() == 0; });
    ids.insert(ids.end(), written.tokens.begin(), written.tokens.end());
    TextStream stream(*setup_.tokenizer);
    sample_.clear();
    for (const TokenId id : ids)
      if (!setup_.tokenizer->is_special(id)) sample_ += stream.push(id);
    sample_ += stream.finish();
    say(fmt::format("step {}: sample: {}", step_, sample_));
    if (speaks_) reporter_->sample(step_, sample_);
  }

  void say(const std::string& text) const {
    if (!speaks_) return;
    fmt::print(stderr, "{}{}\n", ::isatty(2) == 1 ? "\r\033[K" : "", text);
  }

  void save() {
    if (saved_ == step_) return;
    const auto guard = guard_.state();
    TrainingState state{.step = step_,
                        .samples = samples_,
                        .tokens = tokens_,
                        .updates = optimizer_.updates(),
                        .seed = static_cast<std::uint64_t>(c_.train.seed),
                        .optimizer = c_.optimizer.kind,
                        .dtype = c_.train.dtype,
                        .layout = layout_text(),
                        .recent_losses = guard.recent,
                        .skipped = guard.skipped,
                        .rollbacks = rollbacks_,
                        .tokenizer_checksum = setup_.train->tokenizer_checksum()};
    auto files = setup_.tokenizer_files;
    files["config.json"] = write_model_config(setup_.model);
    files["run.toml"] = to_toml(c_);
    const double start = clock_seconds();
    checkpoint_ = save_checkpoint(directory_.checkpoints(), state, optimizer_, files, c_.checkpoint, mesh_);
    saved_ = step_;
    say(fmt::format("step {}: saved {} ({})", step_, checkpoint_.string(),
                    human_seconds(clock_seconds() - start)));
  }

  // After repeated skips: the weights of the last good checkpoint, with the text that follows, not the same
  // text again, which would lead to the same place.
  void roll_back() {
    const std::int64_t from = step_;
    if (++rollbacks_ > c_.train.max_rollbacks)
      throw Error(
          fmt::format("step {}: {} steps skipped in a row after {} rollbacks: giving up; try a lower "
                      "optimizer.lr or another seed",
                      from, guard_.skipped_in_a_row(), c_.train.max_rollbacks));
    const auto reader = open_for_all(directory_.checkpoints(), mesh_);
    if (!reader)
      throw Error(
          fmt::format("step {}: {} steps skipped in a row and no checkpoint to go back to: set "
                      "checkpoint.every, or try a lower optimizer.lr",
                      from, guard_.skipped_in_a_row()));
    load_checkpoint(*reader, optimizer_);
    step_ = saved_ = reader->state().step;
    guard_.restore({.recent = reader->state().recent_losses, .skipped = 0});
    log::warn("step {}: {} steps skipped in a row: back to {}, going on with the text that follows", from,
              c_.train.max_skips, reader->path().string());
    if (speaks_) {
      reporter_ = std::make_unique<Reporter>(directory_, step_, c_.log.tensorboard);
      Record record;
      record.add("step", step_);
      record.add("event", std::string("rollback"));
      record.add("from_step", from);
      reporter_->write(record);
    }
    start_reading();
  }

  TrainingResult stop() {
    save();
    return {.step = step_,
            .signal = stop_,
            .checkpoint = checkpoint_,
            .model = {},
            .evaluation = {},
            .sample = {},
            .step_seconds = 0};
  }

  TrainingResult finish() {
    Record nothing;
    if (!evaluation_ && setup_.validation) evaluate_now(nothing);
    sample_now();
    save();
    prefetcher_.reset();
    if (speaks_)
      export_checkpoint(CheckpointReader(checkpoint_), directory_.model(),
                        setup_.dtype == at::kBFloat16 ? DType::BF16 : DType::F32);
    if (mesh_ != nullptr) mesh_->world()->barrier();
    return {.step = step_,
            .signal = 0,
            .checkpoint = checkpoint_,
            .model = directory_.model(),
            .evaluation = evaluation_,
            .sample = sample_,
            .step_seconds = meter_.mean_step()};
  }

  TrainingSetup& setup_;
  const RunConfig& c_;
  const RunDirectory& directory_;
  Mesh* mesh_;   // null: one process
  bool speaks_;  // this process writes what people and files are told
  int stop_ = 0;
  std::unique_ptr<LanguageModel> model_;
  Optimizer optimizer_;
  SpikeGuard guard_;
  StepClock clock_;
  std::unique_ptr<Reporter> reporter_;
  std::unique_ptr<Prefetcher> prefetcher_;
  std::int64_t step_ = 0, saved_ = -1, rollbacks_ = 0;
  std::uint64_t samples_ = 0, tokens_ = 0;
  double peak_ = 0, flops_per_token_ = 0;
  StepMeter meter_;
  std::optional<Evaluation> evaluation_;
  fs::path checkpoint_;
  std::string sample_;
};

}  // namespace

TrainingResult train(TrainingSetup& setup, const RunDirectory& directory, bool resume) {
  return Trainer(setup, directory).run(resume);
}

}  // namespace sinew
