#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "base/text.hpp"
#include "inspect/report_builder.hpp"

namespace sinew {
namespace {

// A name with its numbers taken out: "model.layers.#.mlp.experts.#.up_proj.weight" and {3, 17}.
struct Pattern {
  std::string text;
  std::vector<std::int64_t> numbers;
};

Pattern pattern_of(const std::string& name) {
  Pattern pattern;
  for (const auto& part : split(name, '.')) {
    if (!pattern.text.empty()) pattern.text += '.';
    const bool number =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    pattern.text += number ? "#" : part;
    if (number) pattern.numbers.push_back(std::stoll(part));
  }
  return pattern;
}

struct Group {
  Pattern first;
  std::vector<std::set<std::int64_t>> numbers;  // per place
  const TensorRow* row = nullptr;
  std::int64_t count = 0, elements = 0;
  std::uint64_t bytes = 0;
};

std::string range_text(const std::set<std::int64_t>& numbers) {
  const auto first = *numbers.begin(), last = *numbers.rbegin();
  const auto count = static_cast<std::int64_t>(numbers.size());
  if (count == 1) return fmt::format("{}", first);
  if (last - first + 1 == count) return fmt::format("{{{}..{}}}", first, last);
  if (count <= 6) return fmt::format("{{{}}}", fmt::join(numbers, ","));
  return fmt::format("{{{}..{}, {} of them}}", first, last, count);
}

std::string group_name(const Group& group) {
  std::string name;
  std::size_t place = 0;
  for (const char c : group.first.text) {
    if (c == '#' && place < group.numbers.size()) {
      name += range_text(group.numbers[place++]);
    } else {
      name += c;
    }
  }
  return name;
}

std::vector<Group> group_rows(const std::vector<TensorRow>& rows, bool all) {
  std::vector<Group> groups;
  std::map<std::tuple<std::string, std::vector<std::int64_t>, std::string>, std::size_t> index;
  for (const TensorRow& row : rows) {
    Pattern pattern = pattern_of(row.name);
    const auto key = std::tuple(all ? row.name : pattern.text, row.shape, row.format);
    const auto [found, fresh] = index.try_emplace(key, groups.size());
    if (fresh) {
      groups.emplace_back();
      groups.back().numbers.resize(pattern.numbers.size());
      groups.back().first = pattern;
      groups.back().row = &row;
    }
    Group& group = groups[found->second];
    for (std::size_t i = 0; i < pattern.numbers.size(); ++i) group.numbers[i].insert(pattern.numbers[i]);
    ++group.count;
    group.elements += element_count(row.shape);
    group.bytes += row.bytes;
  }
  return groups;
}

}  // namespace

std::int64_t element_count(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const auto size : shape) count *= size;
  return count;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void add_tensor_table(ReportBuilder& report, const std::vector<TensorRow>& rows, bool all) {
  const auto groups = group_rows(rows, all);
  const bool stored =
      std::any_of(rows.begin(), rows.end(), [](const TensorRow& row) { return !row.format.empty(); });
  std::size_t width = 5;
  for (const Group& group : groups) width = std::max(width, shape_text(group.row->shape).size());
  if (groups.size() == rows.size()) {
    report.heading(fmt::format("Tensors ({})", with_commas(rows.size())));
  } else {
    report.heading(fmt::format("Tensors ({} in {} groups of alike ones; --all lists each)",
                               with_commas(rows.size()), with_commas(groups.size())));
  }
  const std::string format_head = stored ? fmt::format("  {:<8} {:>11}", "format", "size") : "";
  report.line("  {:>7}  {:<{}}  {:>18}{}  name", "count", "shape", width, "elements", format_head);
  Json table = Json::array();
  for (const Group& group : groups) {
    const std::string name = group_name(group), shape = shape_text(group.row->shape);
    const std::string format = stored ? fmt::format("  {:<8} {:>11}", group.row->format,
                                                    human_bytes(static_cast<double>(group.bytes)))
                                      : "";
    report.line("  {:>7}  {:<{}}  {:>18}{}  {}", with_commas(static_cast<std::uint64_t>(group.count)), shape,
                width, with_commas(static_cast<std::uint64_t>(group.elements)), format, name);
    Json entry{
        {"name", name}, {"shape", group.row->shape}, {"count", group.count}, {"elements", group.elements}};
    if (stored) {
      entry["format"] = group.row->format;
      entry["bytes"] = group.bytes;
    }
    table.push_back(std::move(entry));
  }
  report.json["tensor_count"] = rows.size();
  report.json["tensors"] = std::move(table);
}

}  // namespace sinew
