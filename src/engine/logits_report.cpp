#include "engine/logits_report.hpp"

#include "base/error.hpp"
#include "engine/log_probability.hpp"

namespace sinew::engine {

void write_logits_report(Session& session, const TokenRows& rows, bool loss,
                         const std::filesystem::path& out) {
  require(!loss || rows[0].size() > 1, "the loss needs rows of two tokens or more");
  AtomicFile file(out);
  file.write("{\"logits\": [");
  double sum = 0;
  for (std::size_t b = 0; b < rows.size(); ++b) {
    if (b > 0) file.write(",\n");
    const std::vector<TokenId> ids(rows[b].begin(), rows[b].end());
    Sequence sequence = session.make_sequence();
    const Input input{&sequence, ids, Logits::all};
    session.forward({&input, 1}, [&](std::size_t, index_t token, std::span<const float> logits) {
      const auto t = static_cast<std::size_t>(token);
      write_json_row(file, logits, t == 0, t + 1 == ids.size());
      if (t + 1 < ids.size()) sum -= log_probability(logits, ids[t + 1]);
    });
  }
  file.write("]");
  if (loss) {
    file.write(",\n\"loss\": ");
    write_json_number(file,
                      static_cast<float>(sum / static_cast<double>(rows.size() * (rows[0].size() - 1))));
  }
  file.write("}\n");
  file.commit();
}

}  // namespace sinew::engine
