#include "text/split_plan.hpp"

#include <algorithm>
#include <cmath>

namespace sinew {

SplitPlan SplitPlan::by_hash(double fraction) {
  SplitPlan plan;
  plan.threshold_ = static_cast<std::uint64_t>(std::ldexp(fraction, 64));  // fraction <= 1/2
  return plan;
}

SplitPlan SplitPlan::of_all(std::vector<Seen> documents, double fraction) {
  SplitPlan plan;
  if (fraction <= 0) return plan;
  std::sort(documents.begin(), documents.end(), [](const Seen& a, const Seen& b) { return a.hash < b.hash; });
  const auto same = [](const Seen& a, const Seen& b) { return a.hash == b.hash; };
  documents.erase(std::unique(documents.begin(), documents.end(), same), documents.end());
  double total = 0;
  for (const auto& document : documents) total += static_cast<double>(document.bytes);
  const double target = std::max(fraction * total, std::min(total / 10, 16.0 * 1024));
  double held = 0;
  const Seen* longest = nullptr;
  for (const auto& document : documents) {
    const auto bytes = static_cast<double>(document.bytes);
    if (held < target && held + bytes <= 1.25 * target) {
      plan.chosen_.push_back(document.hash);
      held += bytes;
    } else if (longest == nullptr || document.bytes > longest->bytes) {
      longest = &document;
    }
  }
  if (held < target / 2 && longest != nullptr) {
    const auto wanted = static_cast<std::uint64_t>(std::ceil(target - held));
    plan.cut_ = Seen{longest->hash, std::min(wanted, longest->bytes / 2)};
  }
  return plan;
}

bool SplitPlan::holds_out(const Hash128& hash) const {
  return hash.high < threshold_ || std::binary_search(chosen_.begin(), chosen_.end(), hash);
}

std::optional<std::size_t> SplitPlan::cut(const Hash128& hash, std::string_view text) const {
  if (!cut_ || cut_->hash != hash || cut_->bytes == 0) return std::nullopt;
  const std::size_t earliest = text.size() - cut_->bytes, latest = text.size() - cut_->bytes / 2 - 1;
  for (const char* ends : {"\n", " "}) {  // After a line, else after a word, else between characters.
    const auto at = text.find(ends, earliest);
    if (at != std::string_view::npos && at < latest) return at + 1;
  }
  std::size_t at = earliest;
  while (at < latest && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  return at;
}

}  // namespace sinew
