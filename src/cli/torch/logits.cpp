// sinew logits on the libtorch path.
#include "cli/logits.hpp"

#include <ATen/Parallel.h>

#include "base/threads.hpp"
#include "model/logits_report.hpp"
#include "ops/device.hpp"

namespace sinew::cli {

void logits_with_torch(const LogitsOptions& o) {
  at::set_num_threads(default_threads());
  const auto device = find_device(o.device);
  const auto rows = read_token_rows(o.ids);
  const auto model = load_model(o.model, find_number_type(o.dtype), device);
  write_logits_report(*model, rows, {.loss = o.loss, .grad_norms = o.grad_norms}, device, o.out);
}

}  // namespace sinew::cli
