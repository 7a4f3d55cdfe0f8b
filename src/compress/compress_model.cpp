#include "compress/compress_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/index.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "compress/quantize_layers.hpp"
#include "compress/sensitivity.hpp"
#include "quant/quantize_rows.hpp"
#include "quant/recipe.hpp"

namespace sinew::compress {
namespace {

constexpr std::uint64_t kMaxText = std::uint64_t{1} << 30;
constexpr double kSensitivityWork = 2e14;  // operations that all measurements may take together
constexpr std::size_t kLogitBytes = std::size_t{512} << 20;

struct Texts {
  std::vector<TokenId> calibration, sensitivity, eval;
};

index_t sensitivity_tokens(const CompressOptions& options, const Model& model, std::size_t tensors) {
  if (options.sensitivity_tokens > 0) return options.sensitivity_tokens;
  double active = 0;  // weights that a token meets
  for (const Layer& layer : model.layers) {
    const auto add = [&active](const WeightMatrix& w) { active += static_cast<double>(w.rows * w.cols); };
    const auto network = [&](const engine::SwigluWeights& w, double times) {
      active += times * 3 * static_cast<double>(w.gate.rows * w.gate.cols);
    };
    add(layer.o);
    if (layer.dense) network(*layer.dense, 1);
    if (layer.moe) network(layer.moe->experts[0], static_cast<double>(model.config.moe.num_experts_per_tok));
  }
  // Two formats a tensor, each through half of the layers on average.
  const double a_token = 2 * active * static_cast<double>(std::max<std::size_t>(1, tensors));
  const auto by_memory = static_cast<index_t>(kLogitBytes / (4 * size(model.config.vocab_size)));
  return std::min(std::clamp(static_cast<index_t>(kSensitivityWork / a_token), index_t{512}, index_t{4096}),
                  by_memory);
}

std::vector<TokenId> read_tokens(const Tokenizer& tokenizer, const std::filesystem::path& path) {
  const std::string text = read_file(path, kMaxText);
  std::vector<TokenId> ids = tokenizer.encode(text, false, false);
  require(ids.size() > 16, "{}: {} tokens are too few to calibrate with", path.string(), ids.size());
  return ids;
}

Texts read_texts(const CompressOptions& options, index_t window, index_t sensitivity) {
  const auto tokenizer = load_tokenizer(options.quantize.source);
  const std::vector<TokenId> text = read_tokens(*tokenizer, options.text);
  const auto count = static_cast<index_t>(text.size());
  const index_t kept = options.eval_text.empty() ? count - std::max<index_t>(count / 10, 8) : count;
  Texts out;
  out.calibration = spread_windows(text, 0, kept, window, options.tokens);
  out.sensitivity = spread_windows(text, 0, kept, window, sensitivity);
  if (options.eval_text.empty()) {
    out.eval = spread_windows(text, kept, count, window, options.eval_tokens);
  } else {
    const std::vector<TokenId> other = read_tokens(*tokenizer, options.eval_text);
    out.eval = spread_windows(other, 0, static_cast<index_t>(other.size()), window, options.eval_tokens);
  }
  return out;
}

class Compressor {
 public:
  explicit Compressor(const CompressOptions& options)
      : options_(options),
        source_(open_model_source(options.quantize.source, options.quantize.gguf)),
        model_(engine::load_model(options.quantize.source)),
        places_(source_),
        window_(std::min(options.window, model_->config.max_position_embeddings)) {
    texts_ = read_texts(options, window_, sensitivity_tokens(options, *model_, source_.tensors.size()));
    report_.method = options.method;
    report_.calibration_tokens = static_cast<index_t>(texts_.calibration.size());
  }

  CompressReport run() {
    calibrate();
    importance_.emplace(*model_, source_, places_, statistics_);
    if (!options_.quantize.type.empty()) {
      write(recipe_formats(source_, options_.quantize.type));
    } else {
      choices_ = tensor_choices(source_, *importance_, statistics_);
      options_.max_kl ? reach_divergence(*options_.max_kl)
                      : write(pick(byte_budget(options_.quantize, source_)));
    }
    return std::move(report_);
  }

 private:
  LayerRunner runner(const std::vector<TokenId>& text) const {
    return LayerRunner(model_->config, model_->rope_layout, text, window_);
  }

  void calibrate() {
    const bool known = !options_.statistics.empty() && std::filesystem::exists(options_.statistics);
    if (known) {
      statistics_ = load_statistics(options_.statistics);
      require(statistics_.model == model_fingerprint(model_->config), "{}: of another model than {}",
              options_.statistics.string(), options_.quantize.source.string());
    } else {
      LayerRunner all = runner(texts_.calibration);
      statistics_ = gather_statistics(*model_, source_, places_, all);
    }
    report_.rare = rare_experts(statistics_);
    if (options_.quantize.type.empty() && sensitivities_missing(source_, statistics_)) {
      LayerRunner some = runner(texts_.sensitivity);
      measure_sensitivities(*model_, source_, places_, some, statistics_);
    }
    if (!options_.statistics.empty()) save_statistics(options_.statistics, statistics_);
  }

  std::vector<BlockFormat> pick(std::uint64_t budget) {
    std::vector<BlockFormat> formats = pick_formats(source_, choices_, budget);
    report_.predicted_kl = predicted_kl(choices_, formats);
    return formats;
  }

  // The smallest budget whose predicted divergence is at most `target`.
  std::vector<BlockFormat> pick_for(double target) {
    std::uint64_t low = 0, high = 0;
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      std::uint64_t least = tensor_bytes(source_.tensors[i], choices_[i].formats[0]), most = least;
      for (const BlockFormat format : choices_[i].formats) {
        least = std::min(least, tensor_bytes(source_.tensors[i], format));
        most = std::max(most, tensor_bytes(source_.tensors[i], format));
      }
      low += least;
      high += most;
    }
    std::vector<BlockFormat> best = pick_formats(source_, choices_, high);
    for (int step = 0; step < 24 && high - low > high / 2000; ++step) {
      const std::uint64_t middle = low + (high - low) / 2;
      std::vector<BlockFormat> formats = pick_formats(source_, choices_, middle);
      if (predicted_kl(choices_, formats) > target) {
        low = middle;
      } else {
        high = middle;
        best = std::move(formats);
      }
    }
    report_.predicted_kl = predicted_kl(choices_, best);
    return best;
  }

  // Predictions are of rounding and add up; what comes out is measured, and the target corrected by it.
  void reach_divergence(double target) {
    constexpr int kTries = 5;
    double aim = target;
    for (int attempt = 1; attempt <= kTries; ++attempt) {
      write(pick_for(aim));
      const double reached = report_.quality.kl, predicted = std::max(1e-12, *report_.predicted_kl);
      log::info("aimed at a divergence of {:.5f}: {:.5f} measured, {:.3f} bits per weight", target, reached,
                report_.weights.bits_per_weight);
      const bool good = reached <= target;
      if (good && (reached > 0.9 * target || attempt > 1)) return;
      const double next = predicted * target / std::max(1e-12, reached) * (good ? 0.97 : 0.93);
      require(good || attempt < kTries,
              "{}: a divergence of {} nats is not reached ({} at {:.2f} bits per weight)",
              options_.quantize.out.string(), target, reached, report_.weights.bits_per_weight);
      if (good && next <= 1.05 * aim) return;
      aim = next;
    }
  }

  void write(const std::vector<BlockFormat>& formats) {
    if (options_.method == Method::gptq)
      write_gptq(formats);
    else
      report_.weights = write_quantized(
          source_, formats, options_.quantize.out,
          [&](std::size_t tensor, const float* rows, std::int64_t first, std::int64_t count, std::byte* out) {
            importance_->quantize(source_, tensor, formats[tensor], rows, first, count, out);
          });
    const auto made = engine::load_model(options_.quantize.out);
    report_.quality = compare_models(*model_, *made, texts_.eval, window_);
  }

  void write_gptq(const std::vector<BlockFormat>& formats) {
    std::vector<std::uint64_t> bytes;
    for (std::size_t i = 0; i < formats.size(); ++i)
      bytes.push_back(tensor_bytes(source_.tensors[i], formats[i]));
    if (options_.quantize.out.has_parent_path()) make_directories(options_.quantize.out.parent_path());
    BlockStore store(options_.quantize.out, bytes);
    std::vector<bool> done(formats.size(), false);
    LayerRunner all = runner(texts_.calibration);
    const std::vector<LayerLoss> losses =
        gptq_layers(*model_, source_, places_, formats, all, options_.memory, store, done);
    report_.layer_gain.clear();
    for (const LayerLoss& loss : losses)
      report_.layer_gain.push_back(loss.rounding > 0 ? loss.gptq / loss.rounding : 1);
    report_.weights = write_quantized(
        source_, formats, options_.quantize.out,
        [&](std::size_t tensor, const float* rows, std::int64_t first, std::int64_t count, std::byte* out) {
          const std::size_t row = block_bytes(formats[tensor], size(source_.tensors[tensor].rows.cols));
          if (done[tensor])
            std::memcpy(out, store.tensor(tensor) + size(first) * row, size(count) * row);
          else
            importance_->quantize(source_, tensor, formats[tensor], rows, first, count, out);
        });
  }

  const CompressOptions& options_;
  ModelSource source_;
  std::shared_ptr<Model> model_;
  TensorPlaces places_;
  index_t window_;
  Texts texts_;
  Statistics statistics_;
  std::optional<ImportanceTable> importance_;
  std::vector<TensorChoices> choices_;
  CompressReport report_;
};

}  // namespace

std::vector<TokenId> spread_windows(const std::vector<TokenId>& text, index_t first, index_t last,
                                    index_t window, index_t count) {
  const index_t room = (last - first) / window, wanted = std::max<index_t>(1, count / window);
  std::vector<TokenId> out;
  if (room == 0) {
    out.assign(text.begin() + first, text.begin() + last);
    return out;
  }
  const index_t windows = std::min(room, wanted);
  for (index_t i = 0; i < windows; ++i) {
    const auto begin = text.begin() + first + i * room / windows * window;
    out.insert(out.end(), begin, begin + window);
  }
  return out;
}

CompressReport compress_model(const CompressOptions& options) {
  check_quantize_options(options.quantize, options.max_kl.has_value());
  require(options.window >= 16 && options.tokens >= options.window && options.eval_tokens > 0,
          "quantize: windows of 16 tokens or more, and at least one of them");
  require(!options.max_kl || *options.max_kl > 0, "quantize: --max-kl is to be above 0");
  const CompressReport report = Compressor(options).run();
  const auto& path = options.quantize.report;
  if (!path.empty())
    write_file_atomic(path, path.extension() == ".html"
                                ? report.html(options.quantize.out.filename().string())
                                : report.json());
  return report;
}

}  // namespace sinew::compress
