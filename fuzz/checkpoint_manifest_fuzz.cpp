// The manifest of a checkpoint. A body is wrapped with the checksum it ought to have, so that the fuzzer
// gets past it.
#include <nlohmann/json.hpp>
#include <string>

#include "base/checksum.hpp"
#include "base/error.hpp"
#include "storage/checkpoint_manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string wrapped(text);
  const auto body = nlohmann::json::parse(text, nullptr, false);
  if (!body.is_discarded()) {
    try {
      const std::string dumped = body.dump();
      wrapped = nlohmann::json{
          {"checksum", sinew::hex64(sinew::xxh3(dumped.data(), dumped.size()))},
          {"checkpoint",
           body}}.dump();
    } catch (const nlohmann::json::exception&) {  // text that is not UTF-8
    }
  }
  try {
    const auto manifest = sinew::parse_manifest(wrapped, "fuzz");
    sinew::parse_manifest(sinew::write_manifest(manifest), "written");
  } catch (const sinew::UserError&) {
  }
  return 0;
}
