#include "storage/checkpoint_manifest.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/checksum.hpp"
#include "base/error.hpp"
#include "storage/boxes.hpp"

namespace sinew {
namespace {

using nlohmann::json;
constexpr int kVersion = 1;

std::string checksum_of(const json& body) {
  const std::string text = body.dump();
  return hex64(xxh3(text.data(), text.size()));
}

json state_to_json(const TrainingState& s) {
  return {{"step", s.step},       {"samples", s.samples},     {"tokens", s.tokens},
          {"updates", s.updates}, {"seed", s.seed},           {"optimizer", s.optimizer},
          {"dtype", s.dtype},     {"layout", s.layout},       {"recent_losses", s.recent_losses},
          {"skipped", s.skipped}, {"rollbacks", s.rollbacks}, {"tokenizer_checksum", s.tokenizer_checksum}};
}

TrainingState state_from_json(const json& j) {
  TrainingState s;
  j.at("step").get_to(s.step);
  j.at("samples").get_to(s.samples);
  j.at("tokens").get_to(s.tokens);
  j.at("updates").get_to(s.updates);
  j.at("seed").get_to(s.seed);
  j.at("optimizer").get_to(s.optimizer);
  j.at("dtype").get_to(s.dtype);
  j.at("layout").get_to(s.layout);
  j.at("recent_losses").get_to(s.recent_losses);
  j.at("skipped").get_to(s.skipped);
  j.at("rollbacks").get_to(s.rollbacks);
  j.at("tokenizer_checksum").get_to(s.tokenizer_checksum);
  return s;
}

// Elements of a shape whose every size is positive and whose product stays under 2^60; 0 otherwise.
std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size <= 0 || count > (std::int64_t{1} << 60) / size) return 0;
    count *= size;
  }
  return count;
}

bool plain_file_name(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

void check_tiling(const CheckpointTensor& t, const std::set<std::string>& files, const std::string& origin) {
  const std::int64_t whole = elements(t.shape);
  require(whole > 0, "{}: tensor {} has an impossible shape", origin, t.name);
  std::vector<Box> boxes;
  for (const auto& slice : t.slices) {
    require(files.contains(slice.file), "{}: tensor {} is in {}, which is not listed", origin, t.name,
            slice.file);
    bool inside = slice.offset.size() == t.shape.size() && slice.shape.size() == t.shape.size() &&
                  elements(slice.shape) > 0;
    for (std::size_t d = 0; inside && d < t.shape.size(); ++d)
      inside = slice.offset[d] >= 0 && slice.offset[d] <= t.shape[d] - slice.shape[d];
    require(inside, "{}: a slice of tensor {} lies outside it", origin, t.name);
    boxes.push_back({.offset = slice.offset, .extent = slice.shape});
  }
  const std::string problem = tiling_problem(t.shape, boxes);
  require(problem.empty(), "{}: slices of tensor {} {}", origin, t.name, problem);
}

CheckpointTensor tensor_from_json(const json& entry, const std::string& origin) {
  CheckpointTensor tensor{.name = entry.at("name"),
                          .dtype = parse_dtype(entry.at("dtype").get<std::string>()),
                          .shape = entry.at("shape"),
                          .slices = {}};
  require(tensor.name.find('/') != std::string::npos, "{}: tensor name {} has no kind", origin, tensor.name);
  for (const auto& s : entry.at("slices"))
    tensor.slices.push_back(
        {.file = s.at("file"), .key = s.at("key"), .offset = s.at("offset"), .shape = s.at("shape")});
  return tensor;
}

json files_to_json(const std::vector<CheckpointFile>& files) {
  json list = json::array();
  for (const auto& f : files) list.push_back({{"name", f.name}, {"bytes", f.bytes}, {"xxh3", f.xxh3}});
  return list;
}

json tensors_to_json(const std::vector<CheckpointTensor>& tensors) {
  json list = json::array();
  for (const auto& t : tensors) {
    json slices = json::array();
    for (const auto& s : t.slices)
      slices.push_back({{"file", s.file}, {"key", s.key}, {"offset", s.offset}, {"shape", s.shape}});
    list.push_back({{"name", t.name},
                    {"dtype", std::string(dtype_name(t.dtype))},
                    {"shape", t.shape},
                    {"slices", slices}});
  }
  return list;
}

CheckpointManifest from_body(const json& body, const std::string& origin) {
  CheckpointManifest manifest;
  const int version = body.at("version");
  require(version == kVersion, "{}: checkpoint version {}, but this program reads version {}", origin,
          version, kVersion);
  manifest.state = state_from_json(body.at("state"));
  std::set<std::string> files;
  for (const auto& entry : body.at("files")) {
    CheckpointFile file{.name = entry.at("name"), .bytes = entry.at("bytes"), .xxh3 = entry.at("xxh3")};
    require(plain_file_name(file.name) && files.insert(file.name).second,
            "{}: bad or repeated file name \"{}\"", origin, file.name);
    manifest.files.push_back(std::move(file));
  }
  std::set<std::string> names;
  for (const auto& entry : body.at("tensors")) {
    CheckpointTensor tensor = tensor_from_json(entry, origin);
    check_tiling(tensor, files, origin);
    require(names.insert(tensor.name).second, "{}: tensor {} is listed twice", origin, tensor.name);
    manifest.tensors.push_back(std::move(tensor));
  }
  return manifest;
}

}  // namespace

std::string write_manifest(const CheckpointManifest& manifest) {
  json body = {
      {"format", "sinew-checkpoint"}, {"version", kVersion}, {"state", state_to_json(manifest.state)}};
  body["files"] = files_to_json(manifest.files);
  body["tensors"] = tensors_to_json(manifest.tensors);
  const std::string checksum = checksum_of(body);
  return json{{"checksum", checksum}, {"checkpoint", std::move(body)}}.dump(1) + "\n";
}

std::string describe_parts(const std::vector<CheckpointPart>& parts) {
  json list = json::array();
  for (const auto& part : parts)
    list.push_back({{"files", files_to_json(part.files)}, {"tensors", tensors_to_json(part.tensors)}});
  return list.dump();
}

std::vector<CheckpointPart> parse_parts(std::string_view text) {
  std::vector<CheckpointPart> parts;
  for (const auto& entry : json::parse(text)) {
    CheckpointPart part;
    for (const auto& f : entry.at("files"))
      part.files.push_back({.name = f.at("name"), .bytes = f.at("bytes"), .xxh3 = f.at("xxh3")});
    for (const auto& t : entry.at("tensors"))
      part.tensors.push_back(tensor_from_json(t, "a process's part of a checkpoint"));
    parts.push_back(std::move(part));
  }
  return parts;
}

CheckpointManifest parse_manifest(std::string_view text, const std::string& origin) {
  const json root = json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains("checkpoint") || !root.contains("checksum") ||
      !root["checksum"].is_string())
    fail("{}: not a checkpoint manifest, or cut short", origin);
  try {
    require(checksum_of(root["checkpoint"]) == root["checksum"].get<std::string>(),
            "{}: its checksum does not match: the file is damaged", origin);
    return from_body(root["checkpoint"], origin);
  } catch (const json::exception& error) {
    fail("{}: not a checkpoint manifest: {}", origin, error.what());
  }
}

}  // namespace sinew
