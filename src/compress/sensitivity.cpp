#include "compress/sensitivity.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "base/threads.hpp"
#include "compress/compare.hpp"
#include "compress/quantize_layers.hpp"
#include "quant/quantize_rows.hpp"
#include "quant/recipe.hpp"

namespace sinew::compress {
namespace {

struct WeightedError {
  double error = 0, all = 0;  // sums of w (q - x)^2 and w x^2 over the tensor
  double relative() const { return all > 0 ? error / all : 0; }
};

// Of rounding, weighed by importance, from up to 64 rows.
WeightedError weighted_error(const ModelSource& source, std::size_t number, const ImportanceTable& importance,
                             BlockFormat format) {
  constexpr index_t kRows = 64;
  const RowSource& tensor = source.tensors[number].rows;
  const index_t rows = std::min(kRows, tensor.rows);
  std::vector<float> values(size(tensor.cols)), rounded(values.size());
  std::vector<std::byte> bytes(block_bytes(format, values.size()));
  double error = 0, all = 0;
  for (index_t i = 0; i < rows; ++i) {
    const index_t row = i * tensor.rows / rows;
    index_t end = 0;
    const float* const weight = importance.find(number, row, &end);
    tensor.read(row, 1, values.data());
    quantize_rows(format, values.data(), 1, tensor.cols, weight, bytes.data());
    dequantize(format, bytes.data(), rounded.data(), rounded.size());
    for (std::size_t c = 0; c < values.size(); ++c) {
      const double w = weight != nullptr ? weight[c] : 1,
                   difference = static_cast<double>(rounded[c]) - values[c];
      error += w * difference * difference;
      all += w * static_cast<double>(values[c]) * values[c];
    }
  }
  const double times = static_cast<double>(tensor.rows) / static_cast<double>(std::max<index_t>(1, rows));
  return {error * times, all * times};
}

class Meter {
 public:
  Meter(const Model& model, const ModelSource& source, const TensorPlaces& places, LayerRunner& runner,
        Statistics& statistics)
      : model_(model),
        source_(source),
        places_(places),
        runner_(runner),
        statistics_(statistics),
        importance_(model, source, places, statistics) {}

  void measure() {
    const std::size_t layers = model_.layers.size();
    run_from(0, true);
    runner_.logits(model_.final_norm, model_.head, nullptr, [&](index_t, index_t count, const float* logits) {
      base_.insert(base_.end(), logits, logits + count * model_.config.vocab_size);
    });
    Progress progress("Measuring sensitivities", layers + 1, "layers");
    outer_tensors();
    progress.update(1);
    runner_.embed(model_.embedding);
    std::vector<float> before = runner_.states();
    for (std::size_t l = 0; l < layers; ++l) {
      layer_tensors(l, before);
      runner_.states() = before;
      runner_.run(model_.layers[l], nullptr, true);
      before = runner_.states();
      progress.update(l + 2);
    }
    progress.finish();
  }

 private:
  bool wanted(std::size_t tensor) const {
    return candidate_formats(source_.tensors[tensor]).size() > 1 &&
           statistics_.sensitivities.count(source_.tensors[tensor].name) == 0;
  }

  void run_from(std::size_t layer, bool embed) {
    if (embed) runner_.embed(model_.embedding);
    for (std::size_t l = layer; l < model_.layers.size(); ++l) runner_.run(model_.layers[l], nullptr, true);
  }

  // Of the logits that the states lead to.
  double divergence(const WeightMatrix& head) const {
    const index_t vocab = model_.config.vocab_size;
    ComparisonSums sums(runner_.text(), runner_.window(), vocab);
    runner_.logits(model_.final_norm, head, nullptr, [&](index_t first, index_t count, const float* logits) {
      sums.add(first, count, base_.data() + first * vocab, logits);
    });
    return sums.result().kl;
  }

  // One tensor, whole, in a format.
  std::vector<std::byte> rounded(std::size_t tensor, BlockFormat format) const {
    const RowSource& rows = source_.tensors[tensor].rows;
    const std::size_t row_bytes = block_bytes(format, size(rows.cols));
    std::vector<std::byte> out(size(rows.rows) * row_bytes);
    parallel_for(size((rows.rows + 31) / 32), 1, [&](std::size_t begin, std::size_t end) {
      std::vector<float> values(size(32 * rows.cols));
      for (std::size_t piece = begin; piece < end; ++piece) {
        const index_t first = static_cast<index_t>(piece) * 32,
                      count = std::min<index_t>(32, rows.rows - first);
        rows.read(first, count, values.data());
        importance_.quantize(source_, tensor, format, values.data(), first, count,
                             out.data() + size(first) * row_bytes);
      }
    });
    return out;
  }

  // Tensors that are measured together, with their weights in what that costs.
  struct Member {
    std::size_t tensor;
    double tokens = 1;
  };

  template <class Run>  // run(formats of the members, their bytes) -> KL
  void measure_group(const std::vector<Member>& members, const Run& run) {
    for (const BlockFormat wished : kMeasuredFormats) {
      if (stop_requested() != 0)
        throw Error("stopped while sensitivities were measured; nothing was written");
      const BlockFormat format = fitting_format(wished, source_.tensors[members[0].tensor].rows.cols);
      std::vector<std::vector<std::byte>> bytes;
      std::vector<double> shares;
      double all = 0;
      for (const Member& member : members) {
        bytes.push_back(rounded(member.tensor, format));
        shares.push_back(members.size() == 1
                             ? 1
                             : member.tokens *
                                   weighted_error(source_, member.tensor, importance_, format).error);
        all += shares.back();
      }
      const double kl = run(format, bytes);
      for (std::size_t m = 0; m < members.size(); ++m)
        statistics_
            .sensitivities[source_.tensors[members[m].tensor].name][std::string(block_info(format).name)] =
            all > 0 ? kl * shares[m] / all : 0;
    }
  }

  template <class Run>  // run(format, bytes) -> KL
  void measure_tensor(std::size_t tensor, const Run& run) {
    if (wanted(tensor))
      measure_group({{tensor}},
                    [&](BlockFormat format, const auto& bytes) { return run(format, bytes[0].data()); });
  }

  WeightMatrix replaced(const WeightMatrix& w, BlockFormat format, const std::byte* data) const {
    WeightMatrix out{.name = w.name, .rows = w.rows, .cols = w.cols, .format = format, .data = data};
    out.row_bytes = block_bytes(format, size(w.cols));
    return out;
  }

  // The states are those after the last layer on entry.
  void outer_tensors() {
    const TensorPlaces::Place *const head = places_.find("lm_head.weight"), *const words = places_.find(
                                                                                "model.embed_tokens.weight");
    if (head != nullptr)
      measure_tensor(head->tensor, [&](BlockFormat format, const std::byte* data) {
        return divergence(replaced(model_.head, format, data));
      });
    if (words == nullptr) return;
    measure_tensor(words->tensor, [&](BlockFormat format, const std::byte* data) {
      const WeightMatrix embedding = replaced(model_.embedding, format, data);
      runner_.embed(embedding);
      run_from(0, false);
      return divergence(head != nullptr ? model_.head : embedding);
    });
  }

  double tokens_at(std::size_t layer, index_t expert) const {
    for (const ExpertVisits& visits : statistics_.visits)
      if (visits.layer == static_cast<std::int64_t>(layer)) return visits.tokens[size(expert)] + 1;
    return 1;
  }

  void layer_tensors(std::size_t l, const std::vector<float>& before) {
    const LayerUnits units = layer_units(source_, places_, model_, static_cast<index_t>(l));
    const bool together = model_.layers[l].moe && model_.layers[l].moe->experts.size() > kMeasuredApart;
    std::map<std::string, std::vector<Member>> groups;
    std::map<std::size_t, std::vector<const Unit*>> by_tensor;
    for (const Unit& unit : units.units) {
      auto& parts = by_tensor[unit.tensor];
      parts.push_back(&unit);
      if (parts.size() > 1 || !wanted(unit.tensor)) continue;
      const std::string& name = source_.tensors[unit.tensor].name;
      const bool alone = unit.expert >= 0 && unit.rows == source_.tensors[unit.tensor].rows.rows;
      const std::string key =
          alone && together ? name.substr(0, name.find('.', name.find(".ffn_") + 1)) : name;
      groups[key].push_back({unit.tensor, alone ? tokens_at(l, unit.expert) : 1});
    }
    for (const auto& [key, members] : groups)
      measure_group(members, [&, &list = members](BlockFormat format, const auto& bytes) {
        Layer layer = model_.layers[l];
        for (std::size_t m = 0; m < list.size(); ++m)
          for (const Unit* unit : by_tensor[list[m].tensor])
            set_unit(*unit, format,
                     bytes[m].data() + size(unit->first_row) * block_bytes(format, size(unit->cols)), layer);
        runner_.states() = before;
        runner_.run(layer, nullptr, true);
        run_from(l + 1, false);
        return divergence(model_.head);
      });
  }

  const Model& model_;
  const ModelSource& source_;
  const TensorPlaces& places_;
  LayerRunner& runner_;
  Statistics& statistics_;
  ImportanceTable importance_;
  std::vector<float> base_;  // logits [tokens, vocab]
};

// log KL over log error through the measured points; proportional beyond them.
double interpolated(const std::vector<std::pair<double, double>>& points, double error) {
  if (points.empty() || error <= 0) return 0;
  const auto scaled = [&](const std::pair<double, double>& p) { return p.second * error / p.first; };
  if (error <= points.front().first) return scaled(points.front());
  for (std::size_t i = 1; i < points.size(); ++i) {
    const auto &a = points[i - 1], &b = points[i];
    if (error > b.first) continue;
    if (a.second <= 0 || b.second <= 0 || b.first <= a.first) return scaled(b);
    const double part = std::log(error / a.first) / std::log(b.first / a.first);
    return std::exp(std::log(a.second) + part * std::log(b.second / a.second));
  }
  return scaled(points.back());
}

}  // namespace

ImportanceTable::ImportanceTable(const Model& model, const ModelSource& source, const TensorPlaces& places,
                                 const Statistics& statistics)
    : ranges_(source.tensors.size()) {
  const auto add = [&](std::size_t tensor, index_t first, index_t rows, const std::string& input) {
    const auto found = statistics.moments.find(input);
    if (found == statistics.moments.end()) return;
    require(static_cast<index_t>(found->second.size()) == source.tensors[tensor].rows.cols,
            "the calibration statistics of '{}' do not fit the model", input);
    ranges_[tensor].push_back({first, rows, &found->second});
  };
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const LayerUnits units = layer_units(source, places, model, static_cast<index_t>(l));
    for (const Unit& unit : units.units)
      add(unit.tensor, unit.first_row, unit.rows, units.inputs[unit.input].name);
  }
  const TensorPlaces::Place* head = places.find("lm_head.weight");
  if (head == nullptr) head = places.find("model.embed_tokens.weight");
  if (head != nullptr) add(head->tensor, 0, source.tensors[head->tensor].rows.rows, kHeadInput);
  for (auto& ranges : ranges_)
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
}

const float* ImportanceTable::find(std::size_t tensor, index_t row, index_t* end) const {
  *end = row + 1;
  for (const Range& range : ranges_[tensor]) {
    if (row < range.first || row >= range.first + range.rows) continue;
    *end = range.first + range.rows;
    return range.values->data();
  }
  return nullptr;
}

void ImportanceTable::quantize(const ModelSource& source, std::size_t tensor, BlockFormat format,
                               const float* rows, index_t first, index_t count, std::byte* out) const {
  const index_t cols = source.tensors[tensor].rows.cols;
  const std::size_t row_bytes = block_bytes(format, size(cols));
  for (index_t at = first; at < first + count;) {
    index_t end = 0;
    const float* const importance = find(tensor, at, &end);
    const index_t last = std::min(end, first + count);
    quantize_rows(format, rows + (at - first) * cols, last - at, cols, importance,
                  out + size(at - first) * row_bytes);
    at = last;
  }
}

bool sensitivities_missing(const ModelSource& source, const Statistics& statistics) {
  for (const SourceTensor& tensor : source.tensors)
    if (candidate_formats(tensor).size() > 1 && tensor.name.find(".nextn.") == std::string::npos &&
        statistics.sensitivities.count(tensor.name) == 0)
      return true;
  return false;
}

void measure_sensitivities(const Model& model, const ModelSource& source, const TensorPlaces& places,
                           LayerRunner& runner, Statistics& statistics) {
  Meter(model, source, places, runner, statistics).measure();
}

std::vector<TensorChoices> tensor_choices(const ModelSource& source, const ImportanceTable& importance,
                                          const Statistics& statistics) {
  const std::size_t count = source.tensors.size();
  std::vector<TensorChoices> out(count);
  std::vector<std::vector<double>> errors(count);
  parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      out[i].formats = candidate_formats(source.tensors[i]);
      for (const BlockFormat format : out[i].formats)
        errors[i].push_back(
            out[i].formats.size() > 1 ? weighted_error(source, i, importance, format).relative() : 0);
    }
  });
  // Tensors without a measurement (multi-token-prediction layers) cost what the others do on average.
  double kl = 0, error = 0;
  const auto points_of = [&](std::size_t i) {
    std::vector<std::pair<double, double>> points;
    const auto found = statistics.sensitivities.find(source.tensors[i].name);
    if (found == statistics.sensitivities.end()) return points;
    for (std::size_t k = 0; k < out[i].formats.size(); ++k) {
      const auto value = found->second.find(std::string(block_info(out[i].formats[k]).name));
      if (value != found->second.end() && errors[i][k] > 0) points.emplace_back(errors[i][k], value->second);
    }
    std::sort(points.begin(), points.end());
    return points;
  };
  for (std::size_t i = 0; i < count; ++i)
    for (const auto& [e, k] : points_of(i)) {
      kl += k;
      error += e;
    }
  for (std::size_t i = 0; i < count; ++i) {
    auto points = points_of(i);
    if (points.empty() && error > 0) points = {{error, kl}};
    for (const double e : errors[i]) out[i].costs.push_back(interpolated(points, e));
  }
  return out;
}

double predicted_kl(const std::vector<TensorChoices>& choices, const std::vector<BlockFormat>& formats) {
  double sum = 0;
  for (std::size_t i = 0; i < choices.size(); ++i)
    for (std::size_t k = 0; k < choices[i].formats.size(); ++k)
      if (choices[i].formats[k] == formats[i]) sum += choices[i].costs[k];
  return sum;
}

}  // namespace sinew::compress
