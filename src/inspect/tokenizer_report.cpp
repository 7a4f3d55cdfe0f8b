#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "text/tokenizer.hpp"

namespace sinew {
namespace {

constexpr std::size_t kShownSpecial = 12;

std::string special_text(const Tokenizer& tokenizer, std::optional<TokenId> id) {
  return id ? fmt::format("{} ({})", *id, tokenizer.token_text(*id)) : "none";
}

Json id_json(std::optional<TokenId> id) { return id ? Json(*id) : Json(nullptr); }

}  // namespace

bool holds_tokenizer(const std::filesystem::path& directory) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(directory / "tokenizer.json", ignored) ||
         std::filesystem::is_regular_file(directory / "tokenizer.model", ignored);
}

void add_tokenizer_facts(ReportBuilder& report, const std::filesystem::path& path, std::int64_t vocabulary) {
  const auto tokenizer = load_tokenizer(path);
  const auto size = tokenizer->vocab_size();
  require(vocabulary == 0 || size <= vocabulary,
          "{}: the tokenizer has {} ids, but the model's vocab_size is {}", path.string(), size, vocabulary);
  std::vector<std::string> special;
  for (TokenId id = 0; id < size; ++id)
    if (tokenizer->is_special(id)) special.push_back(tokenizer->token_text(id));
  report.heading(fmt::format("Tokenizer: {}", tokenizer->kind()));
  report.line("  ids       {}", with_commas(static_cast<std::uint64_t>(size)));
  report.line("  begin     {}", special_text(*tokenizer, tokenizer->bos()));
  report.line("  end       {}", special_text(*tokenizer, tokenizer->eos()));
  const std::vector<std::string> shown(
      special.begin(),
      special.begin() + static_cast<std::ptrdiff_t>(std::min(special.size(), kShownSpecial)));
  report.line(
      "  special   {}{}", special.empty() ? "none" : join(shown, " "),
      special.size() > kShownSpecial ? fmt::format(" and {} more", special.size() - kShownSpecial) : "");
  report.json["tokenizer"] = {{"kind", tokenizer->kind()},
                              {"vocab_size", size},
                              {"bos", id_json(tokenizer->bos())},
                              {"eos", id_json(tokenizer->eos())},
                              {"special", special}};
}

Report inspect_tokenizer(const std::filesystem::path& path) {
  ReportBuilder report(path, "tokenizer");
  add_tokenizer_facts(report, path, 0);
  return report.finish();
}

}  // namespace sinew
