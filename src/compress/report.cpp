// The report of a compressed model: as JSON, and as one page with pictures.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/chart.hpp"
#include "base/text.hpp"
#include "compress/compress_model.hpp"

namespace sinew::compress {
namespace {

using Json = nlohmann::ordered_json;

std::string escaped(const std::string& text) { return chart::xml_escaped(text); }

std::string layer_chart(const CompressReport& report) {
  chart::Chart picture;
  picture.title = "Error of the hidden states after each layer";
  picture.subtitle = "relative to the unquantized model's, on held-out text";
  picture.x.label = "layer";
  picture.y.label = "relative error";
  picture.y.min = 0;
  chart::Line line{.name = "error"};
  for (std::size_t l = 0; l < report.quality.layer_errors.size(); ++l) {
    line.x.push_back(static_cast<double>(l));
    line.y.push_back(report.quality.layer_errors[l]);
  }
  picture.lines.push_back(std::move(line));
  return chart::to_svg(picture);
}

// Bits of each kind of tensor, layer by layer.
std::string bits_chart(const CompressReport& report) {
  chart::Chart picture;
  picture.title = "Relative error of the weights";
  picture.x.label = "layer";
  picture.y.label = "root of squared error over squared weights";
  picture.y.min = 0;
  std::map<std::string, chart::Points> kinds;
  for (const TensorReport& tensor : report.weights.tensors) {
    if (!tensor.name.starts_with("blk.") || tensor.format == BlockFormat::f32) continue;
    const std::vector<std::string> parts = split(tensor.name, '.');
    chart::Points& points = kinds[parts[2]];
    points.name = parts[2];
    points.x.push_back(std::stod(parts[1]));
    points.y.push_back(tensor.relative_error);
  }
  for (auto& [name, points] : kinds) picture.points.push_back(std::move(points));
  return picture.points.empty() ? std::string() : chart::to_svg(picture);
}

std::string row(const std::string& name, const std::string& value) {
  return "<tr><th>" + escaped(name) + "</th><td>" + escaped(value) + "</td></tr>\n";
}

}  // namespace

std::string CompressReport::json() const {
  Json out = Json::parse(weights.json());
  Json tensors = std::move(out["tensors"]);
  out.erase("tensors");
  out["method"] = method == Method::gptq ? "gptq" : "round";
  out["calibration_tokens"] = calibration_tokens;
  if (predicted_kl) out["predicted_kl"] = *predicted_kl;
  out["eval_tokens"] = quality.tokens;
  out["kl"] = quality.kl;
  out["kl_99th_percentile"] = quality.kl_worst;
  out["top1_agreement"] = quality.same_top;
  out["perplexity"] = quality.perplexity;
  out["base_perplexity"] = quality.base_perplexity;
  out["perplexity_loss"] = quality.perplexity / quality.base_perplexity - 1;
  out["layer_errors"] = quality.layer_errors;
  if (!layer_gain.empty()) out["layer_loss_over_rounding"] = layer_gain;
  out["rare_experts"] = Json::array();
  for (const RareExpert& expert : rare)
    out["rare_experts"].push_back(
        {{"layer", expert.layer}, {"expert", expert.expert}, {"tokens", expert.tokens}});
  out["tensors"] = std::move(tensors);
  return out.dump(2) + "\n";
}

std::string CompressReport::html(const std::string& title) const {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + escaped(title) +
      "</title>\n<style>body{font:15px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 "
      "1em;color-scheme:light dark}table{border-collapse:collapse}th,td{padding:.15em "
      ".8em;text-align:left;border-bottom:1px solid #8884}td.n{text-align:right}</style></head><body>\n<h1>" +
      escaped(title) + "</h1>\n<table>\n";
  out += row("size", human_bytes(static_cast<double>(weights.file_bytes)));
  out += row("bits per weight", fmt::format("{:.3f}", weights.bits_per_weight));
  out += row("method", method == Method::gptq ? "GPTQ" : "rounding");
  out += row("calibration", fmt::format("{} tokens", calibration_tokens));
  out += row("perplexity",
             fmt::format("{:.4f}, unquantized {:.4f} ({:+.3f} %)", quality.perplexity,
                         quality.base_perplexity, 100 * (quality.perplexity / quality.base_perplexity - 1)));
  out += row("KL divergence",
             fmt::format("{:.5f} nats a token, 99th percentile {:.4f}", quality.kl, quality.kl_worst));
  out += row("same most likely token", fmt::format("{:.2f} %", 100 * quality.same_top));
  out += row("experts hardly visited", std::to_string(rare.size()));
  out += "</table>\n" + layer_chart(*this) + "\n" + bits_chart(*this) +
         "\n<h2>Tensors</h2>\n<table><tr><th>name</th><th>format</th><th>weights</th><th>bytes</"
         "th><th>error</th></tr>\n";
  for (const TensorReport& tensor : weights.tensors)
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3f} "
        "%</td></tr>\n",
        escaped(tensor.name), block_info(tensor.format).name, tensor.elements, tensor.bytes,
        100 * tensor.relative_error);
  return out + "</table></body></html>\n";
}

}  // namespace sinew::compress
