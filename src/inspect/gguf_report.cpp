#include "base/error.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "storage/gguf.hpp"

namespace sinew {
namespace {

constexpr std::size_t kShownText = 100, kShownItems = 8;

std::string clean(std::string_view text) {
  std::string out(text.substr(0, kShownText));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return text.size() > kShownText ? out + "..." : out;
}

struct ValueText {
  std::string operator()(std::uint64_t v) const { return fmt::format("{}", v); }
  std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
  std::string operator()(double v) const { return fmt::format("{}", v); }
  std::string operator()(bool v) const { return v ? "true" : "false"; }
  std::string operator()(const std::string& v) const { return clean(v); }
  std::string operator()(const GgufArray& v) const {
    return fmt::format("[{} items]", with_commas(v.size()));
  }
};

struct ValueJson {
  Json operator()(const GgufArray& v) const {  // long arrays (a tokenizer's) by their length only
    if (v.size() > kShownItems) return {{"items", v.size()}};
    Json list = Json::array();
    for (const auto x : v.unsigneds) list.push_back(x);
    for (const auto x : v.signeds) list.push_back(x);
    for (const auto x : v.floats) list.push_back(x);
    for (const auto x : v.strings) list.push_back(std::string(x));
    return list;
  }
  template <class T>
  Json operator()(const T& v) const {
    return v;
  }
};

// An integer of the architecture's own keys, or `fallback`.
std::int64_t arch_int(const Gguf& file, const std::string& arch, const std::string& key,
                      std::int64_t fallback) {
  const GgufValue* value = file.find(arch + "." + key);
  if (value == nullptr) return fallback;
  if (const auto* u = std::get_if<std::uint64_t>(value)) return static_cast<std::int64_t>(*u);
  if (const auto* i = std::get_if<std::int64_t>(value)) return *i;
  return fallback;
}

bool routed_expert(const std::string& name) { return name.find("_exps.") != std::string::npos; }

void add_parameters(ReportBuilder& report, const Gguf& file, const std::string& arch) {
  std::int64_t total = 0, routed = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    total += tensor.elements();
    if (routed_expert(tensor.name)) routed += tensor.elements();
  }
  const auto experts = arch_int(file, arch, "expert_count", 0),
             used = arch_int(file, arch, "expert_used_count", 0);
  const auto active = experts > 0 && used <= experts ? total - routed + routed / experts * used : total;
  report.heading(
      fmt::format("Parameters: {} ({}), active {} ({})", with_commas(static_cast<std::uint64_t>(total)),
                  human_count(static_cast<double>(total)), with_commas(static_cast<std::uint64_t>(active)),
                  human_count(static_cast<double>(active))));
  report.json["parameters"] = {{"total", total}, {"active", active}};
}

// Elements a token leaves in the cache, 0 where the metadata do not say.
std::int64_t kv_elements(const Gguf& file, const std::string& arch) {
  const auto layers = arch_int(file, arch, "block_count", 0);
  if (const auto rank = arch_int(file, arch, "attention.kv_lora_rank", 0); rank > 0)
    return layers * (rank + arch_int(file, arch, "rope.dimension_count", 0));
  const auto heads = arch_int(file, arch, "attention.head_count", 0);
  const auto kv_heads = arch_int(file, arch, "attention.head_count_kv", heads);
  const auto hidden = arch_int(file, arch, "embedding_length", 0);
  if (heads <= 0 || kv_heads <= 0) return 0;
  const auto key = arch_int(file, arch, "attention.key_length", hidden / heads);
  return layers * kv_heads * (key + arch_int(file, arch, "attention.value_length", key));
}

// Sound files may hold kinds of tokenizers that Sinew does not read: that is worth a word, no error.
void add_tokenizer(ReportBuilder& report, const Gguf& file) {
  if (file.find("tokenizer.ggml.tokens") == nullptr) return;
  try {
    add_tokenizer_facts(report, file.path(), 0);
  } catch (const UserError& error) {
    report.note(error.what());
  }
}

}  // namespace

Report inspect_gguf(const std::filesystem::path& path, const InspectOptions& options) {
  const Gguf file(path);
  ReportBuilder report(path, file.metadata_only() ? "GGUF file of metadata only" : "GGUF model");
  report.heading(fmt::format("Metadata ({} keys)", file.metadata().size()));
  Json metadata = Json::object();
  for (const auto& [key, value] : file.metadata()) {
    report.line("  {} = {}", key, std::visit(ValueText{}, value));
    metadata[key] = std::visit(ValueJson{}, value);
  }
  report.json["metadata"] = std::move(metadata);
  add_tokenizer(report, file);
  std::vector<TensorRow> rows;
  for (const GgufTensor& tensor : file.tensors()) {
    const GgmlType* type = ggml_type(tensor.type);
    rows.push_back({tensor.name, tensor.shape,
                    type == nullptr ? fmt::format("type {}", tensor.type) : std::string(type->name),
                    tensor.bytes});
  }
  if (rows.empty()) return report.finish();
  const GgufValue* const arch = file.find("general.architecture");
  const std::string name =
      arch != nullptr && std::holds_alternative<std::string>(*arch) ? std::get<std::string>(*arch) : "";
  add_parameters(report, file, name);
  if (const auto elements = kv_elements(file, name); elements > 0) {
    report.line("KV cache: {} elements a token, {} bytes in F16",
                with_commas(static_cast<std::uint64_t>(elements)),
                with_commas(static_cast<std::uint64_t>(2 * elements)));
    report.json["kv_elements_per_token"] = elements;
    report.json["kv_bytes_per_token"] = {{"F16", 2 * elements}};
  }
  add_stored_bytes(report, rows);
  report.line("Shapes are in GGUF's order: the fastest dimension first.");
  add_tensor_table(report, rows, options.all_tensors);
  return report.finish();
}

}  // namespace sinew
