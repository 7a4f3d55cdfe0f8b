#include "plan/answer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/layout.hpp"
#include "config/run_config.hpp"
#include "plan/compare.hpp"
#include "support/support.hpp"

namespace sinew::plan {
namespace {

Job job_of(double tokens) {
  Job job;
  job.tokens = tokens;
  job.global_batch = 256;
  return job;
}

SearchSpace few() {
  SearchSpace s;
  s.tensor = {1, 2, 4};
  s.micro_batch = {1, 2};
  s.zero = {1, 3};
  s.offload = false;
  s.recompute = {Recompute{}, Recompute{.full = true}};
  return s;
}

const Answer& small_answer() {
  static const Answer made = answer(cluster_of("H100", 64), find_network("deepseek-v2-lite"), job_of(1e12),
                                    few(), {.keep = 3, .curves = true});
  return made;
}

TEST(Answer, TotalsFollowFromTheStep) {
  const Answer& a = small_answer();
  const RunTotals& t = a.totals;
  EXPECT_EQ(t.steps, std::ceil(1e12 / (256.0 * 4096)));
  EXPECT_NEAR(t.days * 86400 * t.goodput.share, t.steps * a.search.best[0].step.seconds, 1);
  EXPECT_NEAR(t.accelerator_hours, t.days * 24 * 64, 1e-6 * t.accelerator_hours);
  EXPECT_NEAR(t.dollars, t.accelerator_hours * a.cluster.price_hour, 1e-6 * t.dollars);
  EXPECT_GT(t.goodput.share, 0.9);
  EXPECT_LE(t.goodput.share, 1);
}

TEST(Answer, JsonAndTextSayTheSame) {
  const Answer& a = small_answer();
  const auto doc = nlohmann::json::parse(answer_json(a));
  EXPECT_EQ(doc["best"].size(), 3u);
  EXPECT_EQ(doc["best"][0]["layout"], layout_text(a.search.best[0].setup.layout));
  EXPECT_NE(answer_text(a).find(doc["best"][0]["layout"].get<std::string>()), std::string::npos);
  double sum = 0;
  for (const auto& [term, seconds] : doc["best"][0]["time_s"].items()) sum += seconds.get<double>();
  EXPECT_NEAR(sum, doc["best"][0]["step_time_s"].get<double>(), 1e-6);
}

TEST(Answer, PageIsSelfContained) {
  const std::string page = answer_html(small_answer());
  EXPECT_EQ(page.find("http://www.w3.org/2000/svg") == std::string::npos,
            page.find("xmlns") == std::string::npos);
  for (const char* outside : {"<script", "<link", "<img", "src=", "@import", "url("})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  for (const char* part : {"Where the time goes", "Memory of the fullest", "The pipeline",
                           "More or fewer accelerators", "What if", "viewport"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
}

TEST(Answer, EmittedConfigurationIsAccepted) {
  const std::string toml = answer_run_toml(small_answer(), "deepseek-v2-lite");
  const test::TempDir dir;
  test::spit(dir / "run.toml", toml);
  const RunConfig config =
      load_run_config(std::vector<std::string>{(dir / "run.toml").string()}, std::vector<std::string>{});
  EXPECT_EQ(config.train.batch, 256);
  const sinew::Layout l = check_layout(config.layout,
                                       {.processes = 64,
                                        .batch = config.train.batch,
                                        .micro_batch = config.train.micro_batch,
                                        .sequence = config.data.sequence},
                                       load_model_config(config.model.config));
  EXPECT_EQ(l.size(), 64);
  const plan::Setup& best = small_answer().search.best[0].setup;
  EXPECT_EQ(l.micro_batches, best.micro_batches());
  EXPECT_EQ(l.data * l.shard, best.layout.data);
  EXPECT_EQ(l.expert, best.layout.expert);
  EXPECT_THROW(answer_run_toml(small_answer(), "moe-10t"), UserError);
}

TEST(Answer, SeveralPrecisionsTheBestChosen) {
  SearchSpace space = few();
  space.precisions = {Precision::bf16, Precision::fp8};
  const Answer a =
      answer(cluster_of("H100", 16), find_network("llama-3.1-8b"), job_of(0), space, {.keep = 2});
  EXPECT_EQ(a.job.precision, Precision::fp8);
}

TEST(Answer, ComparesModelsAndMachines) {
  Job job = job_of(1e12);
  std::vector<Comparison> rows;
  for (const char* model : {"deepseek-v2-lite", "llama-3.1-405b"})
    rows.push_back({cluster_of("H100", 16), model, job});
  const auto doc = nlohmann::json::parse(compare(rows, true));
  ASSERT_EQ(doc.size(), 2u);
  EXPECT_GT(doc[0]["run"]["days"].get<double>(), 0);
  EXPECT_NE(doc[1]["error"].get<std::string>().find("does not fit"), std::string::npos);
  EXPECT_EQ(comparison_preset("eras").size(), 8u);
  EXPECT_THROW(comparison_preset("earas"), UserError);
}

TEST(Answer, WhatDoesNotFitSaysWhy) {
  try {
    answer(cluster_of("H100", 8), find_network("deepseek-v3"), job_of(0), few(), {});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("does not fit"), std::string::npos) << error.what();
  }
}

TEST(Answer, TheCheapestIsNoDearerThanTheWhole) {
  const Answer whole =
      answer(cluster_of("H100", 64), find_network("deepseek-v2-lite"), job_of(1e12), few(), {});
  const Answer cheap =
      cheapest_answer(cluster_of("H100", 64), find_network("deepseek-v2-lite"), job_of(1e12), few(), {});
  EXPECT_LE(cheap.totals.dollars, whole.totals.dollars);
  EXPECT_LE(cheap.cluster.count, 64);
}

TEST(Answer, IslandsShareTheBatchBySpeed) {
  Islands islands;
  islands.parts = {cluster_of("H100", 16), cluster_of("A100", 16)};
  const IslandAnswer slow = answer_islands(islands, find_network("deepseek-v2-lite"), job_of(1e12), few());
  EXPECT_GT(slow.batch_share[0], slow.batch_share[1]);
  EXPECT_NEAR(slow.batch_share[0] + slow.batch_share[1], 1, 0.05);
  islands.outer_steps = 1;
  const IslandAnswer every = answer_islands(islands, find_network("deepseek-v2-lite"), job_of(1e12), few());
  EXPECT_NEAR(every.exchange, 100 * slow.exchange, 1e-9);
}

TEST(Answer, PlannerModelsAreWhatTheirNamesSay) {
  EXPECT_NEAR(count(find_network("moe-1.7t")).total, 1.7e12, 0.05e12);
  EXPECT_NEAR(count(find_network("moe-1.7t")).active, 250e9, 10e9);
  EXPECT_NEAR(count(find_network("moe-10t")).total, 10e12, 0.5e12);
  EXPECT_THROW(find_network("deepseek-v33"), UserError);
}

}  // namespace
}  // namespace sinew::plan
