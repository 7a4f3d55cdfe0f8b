#include "compress/statistics.hpp"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/checksum.hpp"
#include "base/error.hpp"
#include "base/files.hpp"

namespace sinew::compress {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kMagic = "SINEWCAL";
constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 32;

void append(std::string& out, std::uint64_t value) { out.append(reinterpret_cast<const char*>(&value), 8); }

std::uint64_t number_at(const std::string& text, std::size_t at) {
  std::uint64_t value = 0;
  std::memcpy(&value, text.data() + at, 8);
  return value;
}

Json header_of(const Statistics& s) {
  Json header = {{"version", 1}, {"model", s.model}, {"tokens", s.tokens}};
  header["inputs"] = Json::array();
  for (const auto& [name, values] : s.moments)
    header["inputs"].push_back({{"name", name}, {"cols", values.size()}});
  header["visits"] = Json::array();
  for (const ExpertVisits& visits : s.visits)
    header["visits"].push_back({{"layer", visits.layer}, {"tokens", visits.tokens}});
  header["sensitivities"] = Json::object();
  for (const auto& [name, formats] : s.sensitivities) header["sensitivities"][name] = formats;
  return header;
}

// Fills everything but the moments' values; returns the number of floats that follow.
std::uint64_t read_header(const Json& header, Statistics& s) {
  require(header.at("version") == 1, "version {}", header.at("version").dump());
  s.model = header.at("model").get<std::string>();
  s.tokens = header.at("tokens").get<std::int64_t>();
  std::uint64_t floats = 0;
  for (const Json& input : header.at("inputs")) {
    const auto cols = input.at("cols").get<std::uint64_t>();
    require(cols < kMaxFile && floats < kMaxFile, "too many columns");
    s.moments[input.at("name").get<std::string>()].assign(0, 0.F);
    floats += cols;
  }
  for (const Json& visits : header.at("visits"))
    s.visits.push_back(
        {visits.at("layer").get<std::int64_t>(), visits.at("tokens").get<std::vector<double>>()});
  for (const auto& [name, formats] : header.at("sensitivities").items())
    s.sensitivities[name] = formats.get<std::map<std::string, double>>();
  return floats;
}

}  // namespace

std::string model_fingerprint(const ModelConfig& config) {
  const std::string text = write_model_config(config);
  return hex64(xxh3(text.data(), text.size()));
}

void save_statistics(const std::filesystem::path& path, const Statistics& statistics) {
  const std::string header = header_of(statistics).dump();
  std::string out(kMagic);
  append(out, header.size());
  out += header;
  for (const auto& [name, values] : statistics.moments)
    out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  append(out, xxh3(out.data(), out.size()));
  write_file_atomic(path, out);
}

Statistics load_statistics(const std::filesystem::path& path) {
  const std::string text = read_file(path, kMaxFile);
  const std::string name = path.string();
  require(text.size() >= kMagic.size() + 16 && text.starts_with(kMagic), "{}: no calibration statistics",
          name);
  require(xxh3(text.data(), text.size() - 8) == number_at(text, text.size() - 8),
          "{}: damaged (its checksum does not fit); calibrate again", name);
  const std::uint64_t length = number_at(text, kMagic.size());
  const std::size_t begin = kMagic.size() + 8, room = text.size() - begin - 8;
  require(length <= room, "{}: its header is cut off", name);
  Statistics out;
  try {
    const Json header = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                    text.begin() + static_cast<std::ptrdiff_t>(begin + length));
    const std::uint64_t floats = read_header(header, out);
    require(floats * sizeof(float) == room - length, "its size does not fit its header");
    std::size_t at = begin + length;
    for (const Json& input : header.at("inputs")) {
      auto& values = out.moments.at(input.at("name").get<std::string>());
      values.resize(input.at("cols").get<std::size_t>());
      std::memcpy(values.data(), text.data() + at, values.size() * sizeof(float));
      at += values.size() * sizeof(float);
    }
  } catch (const nlohmann::json::exception& error) {
    fail("{}: its header is no valid JSON of this kind ({})", name, error.what());
  } catch (const UserError& error) {
    fail("{}: {}", name, error.what());
  }
  return out;
}

}  // namespace sinew::compress
