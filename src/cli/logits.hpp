// What `sinew logits` was asked for, for the two ways to answer.
#pragma once

#include <string>

namespace sinew::cli {

struct LogitsOptions {
  std::string model, ids, out, dtype = "fp32", device = "cpu";
  bool loss = false, grad_norms = false;
};
void logits_with_torch(const LogitsOptions& options);  // in builds with libtorch

}  // namespace sinew::cli
