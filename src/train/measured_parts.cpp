#include "train/measured_parts.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/checksum.hpp"
#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/machine.hpp"
#include "comm/rendezvous.hpp"

namespace sinew {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kSameSpeed = 0.1;

// Seconds of a product, the mean of several: what tells whether the machine is as fast, and as busy, as it
// was.
double probe(at::ScalarType type, const std::shared_ptr<Mesh>& mesh) {
  const at::NoGradGuard no_grad;
  const auto a = at::full({768, 768}, 0.5, at::TensorOptions(type)), b = at::full_like(a, 0.25);
  auto c = at::mm(a, b);
  constexpr int times = 16;
  const double start = clock_seconds();
  for (int i = 0; i < times; ++i) at::mm_out(c, a, b);
  const double seconds = clock_seconds() - start;
  if (mesh == nullptr) return seconds / times;
  const auto mean = at::full({1}, seconds / times / mesh->size(), at::kDouble);
  mesh->world()->all_reduce(mean);
  return mean.item<double>();
}

// All that the figures depend on.
std::string key_of(const ModelConfig& config, const PartShape& shape, const RunConfig::Optimizer& optimizer,
                   const Mesh* mesh) {
  std::error_code gone;  // the program may have been replaced while it runs: then these are what they are
  const fs::path program = fs::read_symlink("/proc/self/exe", gone);
  const auto written = fs::last_write_time(program, gone).time_since_epoch().count();
  const Machine machine = this_machine();
  return fmt::format("{} {} {}\n{} of {} threads, {} processes\n{} {} x {} {} {}\n{}", program.string(),
                     fs::file_size(program, gone), written, machine.processor, at::get_num_threads(),
                     mesh == nullptr ? 1 : mesh->size(), at::toString(shape.type), shape.rows, shape.tokens,
                     optimizer.kind, mesh == nullptr ? "" : layout_name(mesh->layout()),
                     write_model_config(config));
}

const std::vector<std::pair<const char*, PartSeconds StepParts::*>>& named_parts() {
  static const std::vector<std::pair<const char*, PartSeconds StepParts::*>> list{
      {"embedding", &StepParts::embedding},
      {"attention", &StepParts::attention},
      {"norms", &StepParts::norms},
      {"dense", &StepParts::dense},
      {"moe", &StepParts::moe},
      {"head", &StepParts::head},
      {"mtp_join", &StepParts::mtp_join}};
  return list;
}

std::string text_of(const std::string& key, double probed, const MeasuredParts& m) {
  Json doc{{"key", key}, {"probe_s", probed}, {"update_s", m.parts.update}};
  for (const auto& [name, part] : named_parts()) {
    const PartSeconds& p = m.parts.*part;
    doc["parts"][name] = {p.forward, p.backward, p.weight};
  }
  doc["links"] = Json::array();
  for (const auto& [name, rate] : m.links)
    doc["links"].push_back({name.first, name.second, rate.start, rate.per_byte});
  return doc.dump(1) + "\n";
}

// Whether a file's text is of this run and machine as it is now.
bool read(const std::string& text, const std::string& key, double probed, MeasuredParts& m) {
  try {
    const Json doc = Json::parse(text);
    if (doc.at("key") != key) return false;
    if (std::abs(doc.at("probe_s").get<double>() / probed - 1) > kSameSpeed) return false;
    m.parts.update = doc.at("update_s");
    for (const auto& [name, part] : named_parts()) {
      const Json& p = doc.at("parts").at(name);
      m.parts.*part = {p.at(0), p.at(1), p.at(2)};
    }
    for (const Json& link : doc.at("links")) m.links[{link.at(0), link.at(1)}] = {link.at(2), link.at(3)};
    return m.remembered = true;
  } catch (const nlohmann::json::exception&) {
    return false;  // of another version, or damaged: measured anew
  }
}

}  // namespace

fs::path parts_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return fs::path(cache) / "sinew" / "parts";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    return fs::path(home) / ".cache" / "sinew" / "parts";
  return {};
}

MeasuredParts measured_parts(const ModelConfig& config, const PartShape& shape,
                             const RunConfig::Optimizer& optimizer, const std::shared_ptr<Mesh>& mesh,
                             const fs::path& folder, double seconds, double probed) {
  const std::string key = key_of(config, shape, optimizer, mesh.get());
  const fs::path file =
      folder.empty() ? fs::path() : folder / (hex64(xxh3(key.data(), key.size())) + ".json");
  const bool reads = !file.empty() && (mesh == nullptr || mesh->rank() == 0);
  if (probed == 0) probed = probe(shape.type, mesh);
  std::string text;
  try {
    if (std::error_code none; reads && fs::exists(file, none)) text = read_file(file, 1 << 20);
  } catch (const Error&) {
  }
  std::string shared_key = key;
  if (mesh != nullptr) {
    text = gather_texts(*mesh->world(), text)[0];
    shared_key = gather_texts(*mesh->world(), reads ? key : "")[0];
  }
  MeasuredParts m;
  if (!text.empty() && read(text, shared_key, probed, m)) return m;
  if (mesh != nullptr && mesh->size() > 1) m.links = bench_links(config, shape, mesh);
  m.parts = bench_parts(config, shape, optimizer, seconds, mesh);
  if (!reads) return m;
  try {
    make_directories(folder);
    write_file_atomic(file, text_of(key, probed, m));
  } catch (const Error& error) {
    log::debug("{}", error.what());  // a cache that cannot be written is none
  }
  return m;
}

}  // namespace sinew
