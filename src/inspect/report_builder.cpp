#include "inspect/report_builder.hpp"

#include "base/text.hpp"

namespace sinew {

ReportBuilder::ReportBuilder(const std::filesystem::path& path, std::string_view kind) {
  json["path"] = path.string();
  json["kind"] = kind;
  json["sound"] = true;
  line("{}: {}", path.string(), kind);
}

void ReportBuilder::note(const std::string& text) { notes_.push_back(text); }

Report ReportBuilder::finish() const {
  Report report{text_, {}};
  Json whole = json;
  whole["notes"] = notes_;
  for (const auto& text : notes_) report.text += "note: " + text + "\n";
  report.json = whole.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  return report;
}

}  // namespace sinew
