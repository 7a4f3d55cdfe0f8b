#include "compress/quantize_layers.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "base/team.hpp"
#include "compress/collector.hpp"
#include "quant/quantize_rows.hpp"

namespace sinew::compress {
namespace {

constexpr index_t kPieceRows = 1024;  // of a unit that are held as floats

void read_rows(const RowSource& source, index_t first, index_t count, float* out) {
  const index_t pieces = (count + 31) / 32;
  parallel_tasks(pieces, [&](index_t p) {
    source.read(first + p * 32, std::min<index_t>(32, count - p * 32), out + p * 32 * source.cols);
  });
}

// Inputs in lists whose second moments fit `memory`.
std::vector<std::vector<std::size_t>> in_memory(const LayerUnits& units, std::vector<std::size_t> inputs,
                                                std::size_t memory) {
  std::vector<std::vector<std::size_t>> out;
  std::size_t used = 0;
  for (const std::size_t input : inputs) {
    const std::size_t bytes = Hessian::bytes(units.inputs[input].cols);
    if (out.empty() || used + bytes > memory) {
      out.emplace_back();
      used = 0;
    }
    used += bytes;
    out.back().push_back(input);
  }
  return out;
}

class LayerPass {
 public:
  LayerPass(const Model& model, const ModelSource& source, const TensorPlaces& places,
            const std::vector<BlockFormat>& formats, LayerRunner& runner, std::size_t memory,
            BlockStore& store, std::vector<bool>& done)
      : model_(model),
        source_(source),
        places_(places),
        formats_(formats),
        runner_(runner),
        memory_(memory),
        store_(store),
        done_(done) {}

  LayerLoss run(index_t index) {
    const LayerUnits units = layer_units(source_, places_, model_, index);
    Layer layer = model_.layers[size(index)];
    LayerLoss loss;
    for (const bool attention : {true, false}) {
      std::vector<std::size_t> inputs;
      for (std::size_t i = 0; i < units.inputs.size(); ++i)
        if ((units.inputs[i].part == Part::attention) == attention) inputs.push_back(i);
      // The network's matrices change together, after all of their inputs were seen.
      std::vector<const Unit*> changed;
      for (const auto& list : in_memory(units, inputs, memory_)) {
        Collector collector(units, layer, list);
        runner_.run(layer, &collector, false);
        mix_priors(units, collector.hessians());
        for (const std::size_t input : list)
          quantize(units, input, collector.hessians().at(input), loss, changed);
      }
      for (const Unit* unit : changed) set_unit(*unit, formats_[unit->tensor], place(*unit), layer);
    }
    runner_.run(layer, nullptr, true);
    store_.release();
    return loss;
  }

 private:
  std::byte* place(const Unit& unit) {
    const std::size_t row = block_bytes(formats_[unit.tensor], size(unit.cols));
    return store_.tensor(unit.tensor) + size(unit.first_row) * row;
  }

  void quantize(const LayerUnits& units, std::size_t input, Hessian& hessian, LayerLoss& loss,
                std::vector<const Unit*>& changed) {
    if (stop_requested() != 0) throw Error("stopped; nothing was written");
    const bool blocks = hessian.cols() % kTile == 0;
    const std::vector<float> importance = hessian.moments();
    const GptqFactor factor = blocks ? gptq_factor(hessian) : GptqFactor{};
    for (const Unit& unit : units.units) {
      if (unit.input != input) continue;
      const GptqLoss part =
          quantize_unit(source_.tensors[unit.tensor], unit.first_row, unit.rows, formats_[unit.tensor],
                        blocks ? &factor : nullptr, importance.data(), place(unit));
      loss.gptq += part.loss;
      loss.rounding += part.rounding;
      done_[unit.tensor] = true;
      changed.push_back(&unit);
    }
  }

  const Model& model_;
  const ModelSource& source_;
  const TensorPlaces& places_;
  const std::vector<BlockFormat>& formats_;
  LayerRunner& runner_;
  const std::size_t memory_;
  BlockStore& store_;
  std::vector<bool>& done_;
};

struct HeadHessian : engine::ForwardTap {
  Hessian hessian;
  explicit HeadHessian(index_t cols) : hessian(cols) {}
  void product(const WeightMatrix&, const engine::Activations& x) override {
    hessian.add(x.x, x.ld, x.tokens);
  }
};

}  // namespace

GptqLoss quantize_unit(const SourceTensor& tensor, index_t first_row, index_t rows, BlockFormat format,
                       const GptqFactor* factor, const float* importance, std::byte* out) {
  const index_t cols = tensor.rows.cols;
  const std::size_t row_bytes = block_bytes(format, size(cols));
  std::vector<float> values(size(std::min(kPieceRows, rows) * cols));
  GptqLoss sum;
  for (index_t at = 0; at < rows; at += kPieceRows) {
    const index_t count = std::min(kPieceRows, rows - at);
    read_rows(tensor.rows, first_row + at, count, values.data());
    std::byte* const to = out + size(at) * row_bytes;
    if (factor != nullptr && block_info(format).elements > 1) {
      const GptqLoss part = gptq_rows(format, values.data(), count, *factor, importance, to);
      sum.loss += part.loss;
      sum.rounding += part.rounding;
      continue;
    }
    parallel_tasks(count, [&](index_t r) {
      quantize_rows(format, values.data() + r * cols, 1, cols, importance, to + size(r) * row_bytes);
    });
  }
  return sum;
}

std::vector<LayerLoss> gptq_layers(const Model& model, const ModelSource& source, const TensorPlaces& places,
                                   const std::vector<BlockFormat>& formats, LayerRunner& runner,
                                   std::size_t memory, BlockStore& store, std::vector<bool>& done) {
  std::vector<LayerLoss> out;
  const TensorPlaces::Place* const embedding = places.find("model.embed_tokens.weight");
  const TensorPlaces::Place* const head = places.find("lm_head.weight");
  ensure(embedding != nullptr, "no token embedding");
  const auto row_bytes = [&](std::size_t tensor) {
    return block_bytes(formats[tensor], size(source.tensors[tensor].rows.cols));
  };
  const auto round_embedding = [&](const float* importance) {
    const SourceTensor& tensor = source.tensors[embedding->tensor];
    quantize_unit(tensor, 0, tensor.rows.rows, formats[embedding->tensor], nullptr, importance,
                  store.tensor(embedding->tensor));
    done[embedding->tensor] = true;
  };
  round_embedding(nullptr);
  WeightMatrix words = model.embedding;
  words.storage = engine::Storage::blocks;
  words.scales = nullptr;
  words.packed = nullptr;
  words.format = formats[embedding->tensor];
  words.row_bytes = row_bytes(embedding->tensor);
  words.data = store.tensor(embedding->tensor);
  runner.embed(words);
  Progress progress("Quantizing", model.layers.size() + 1, "layers");
  LayerPass pass(model, source, places, formats, runner, memory, store, done);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    out.push_back(pass.run(static_cast<index_t>(l)));
    progress.update(l + 1);
  }
  HeadHessian tap(model.config.hidden_size);
  runner.logits(model.final_norm, model.head, &tap, [](index_t, index_t, const float*) {});
  const std::vector<float> importance = tap.hessian.moments();
  if (head == nullptr) {  // tied: the embedding is the head too
    round_embedding(importance.data());
  } else {
    const SourceTensor& tensor = source.tensors[head->tensor];
    const bool blocks = tensor.rows.cols % kTile == 0;
    const GptqFactor factor = blocks ? gptq_factor(tap.hessian) : GptqFactor{};
    quantize_unit(tensor, 0, tensor.rows.rows, formats[head->tensor], blocks ? &factor : nullptr,
                  importance.data(), store.tensor(head->tensor));
    done[head->tensor] = true;
  }
  progress.finish();
  return out;
}

}  // namespace sinew::compress
