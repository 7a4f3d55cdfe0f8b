// What a run of `sinew train` needs, in a folder: tokenizer.json, model.json and the token shards data/.
#pragma once

#include <gtest/gtest.h>

#include "support/program.hpp"
#include "support/tiny_run.hpp"

namespace sinew::test {

inline void make_tiny_world(const TempDir& world) {
  const auto path = [&](const char* name) { return (world / name).string(); };
  write_tiny_tokenizer(world / "tokenizer.json");
  spit(world / "text.txt", tiny_text());
  spit(world / "model.json", tiny_v3().dump());
  const Run made = run_sinew({"data", path("text.txt"), "--tokenizer", path("tokenizer.json"), "--out",
                              path("data"), "--val-fraction", "0.1"});
  ASSERT_EQ(made.exit_code, 0) << made.error;
}

}  // namespace sinew::test
