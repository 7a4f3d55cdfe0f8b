#include "comm/launch.hpp"

#include <gtest/gtest.h>

#include <map>

#include "base/error.hpp"

namespace sinew {
namespace {

using Variables = std::map<std::string, std::string>;

Environment environment(const Variables& variables) {
  return [variables](const char* name) {
    static thread_local std::string value;
    const auto found = variables.find(name);
    if (found == variables.end()) return static_cast<const char*>(nullptr);
    value = found->second;
    return value.c_str();
  };
}
std::optional<Launch> launch(const Variables& v) { return read_launch(environment(v)); }

std::string problem(const Variables& v) {
  try {
    launch(v);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Launch, NothingWithoutALauncher) {
  EXPECT_FALSE(launch({}));
  // Inside a batch job but not started by srun.
  EXPECT_FALSE(launch({{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}));
}

TEST(Launch, ReadsTorchrun) {
  const auto l = launch({{"RANK", "5"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"LOCAL_WORLD_SIZE", "4"},
                         {"MASTER_ADDR", "10.0.0.1"},
                         {"MASTER_PORT", "1234"},
                         {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                         {"SLURM_PROCID", "1"},
                         {"SLURM_STEP_NUM_TASKS", "2"}});  // one torchrun a node, started by srun
  ASSERT_TRUE(l);
  EXPECT_EQ(l->by, "torchrun");
  EXPECT_EQ(l->rank, 5);
  EXPECT_EQ(l->size, 8);
  EXPECT_EQ(l->local_rank, 1);
  EXPECT_EQ(l->local_size, 4);
  EXPECT_EQ(l->address, "10.0.0.1");
  EXPECT_EQ(l->port, 1234);
  EXPECT_TRUE(l->store_is_served);
}

TEST(Launch, ReadsSrunAndMpirun) {
  const auto s = launch({{"SLURM_PROCID", "3"},
                         {"SLURM_STEP_NUM_TASKS", "4"},
                         {"SLURM_LOCALID", "1"},
                         {"SLURM_STEP_NUM_NODES", "2"},
                         {"SLURM_STEP_NODELIST", "node[07-08]"},
                         {"SLURM_JOB_ID", "77"}});
  ASSERT_TRUE(s);
  EXPECT_EQ(s->rank, 3);
  EXPECT_EQ(s->local_size, 2);
  EXPECT_EQ(s->address, "node07");
  EXPECT_GE(s->port, 20000);
  const auto m = launch({{"OMPI_COMM_WORLD_RANK", "1"},
                         {"OMPI_COMM_WORLD_SIZE", "2"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                         {"PMIX_NAMESPACE", "job.1"}});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->rank, 1);
  EXPECT_EQ(m->address, "127.0.0.1");
  const auto h = launch(
      {{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "3"}, {"MPI_LOCALNRANKS", "4"}});  // MPICH
  ASSERT_TRUE(h);
  EXPECT_EQ(h->by, "mpirun");
  EXPECT_EQ(h->rank, 3);
  EXPECT_EQ(h->local_size, 4);
}

// RANK exported in a shell, then mpirun: every process would be rank 0 of another job.
TEST(Launch, NamesLeftOversOfAnotherLauncher) {
  Variables stale{{"RANK", "0"},
                  {"WORLD_SIZE", "1"},
                  {"OMPI_COMM_WORLD_RANK", "2"},
                  {"OMPI_COMM_WORLD_SIZE", "4"},
                  {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                  {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
  EXPECT_NE(problem(stale).find("WORLD_SIZE is 1, but OMPI_COMM_WORLD_SIZE is 4"), std::string::npos);
  EXPECT_FALSE(speaks_for_all(environment(stale)));  // one of the four does
  stale["OMPI_COMM_WORLD_RANK"] = "0";
  EXPECT_TRUE(speaks_for_all(environment(stale)));
  stale["WORLD_SIZE"] = "4";
  EXPECT_EQ(problem(stale), "");
  stale["OMPI_COMM_WORLD_RANK"] = "2";
  EXPECT_NE(problem(stale).find("RANK is 0, but OMPI_COMM_WORLD_RANK is 2"), std::string::npos);
  stale["TORCHELASTIC_RUN_ID"] = "job";  // one torchrun a node, which mpirun started
  stale["WORLD_SIZE"] = "8";
  EXPECT_EQ(problem(stale), "");
  EXPECT_NE(
      problem({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}})
          .find("SLURM_STEP_NUM_TASKS is 4"),
      std::string::npos);
}

TEST(Launch, NamesContradictions) {
  EXPECT_NE(problem({{"RANK", "1"}}).find("WORLD_SIZE is not"), std::string::npos);
  EXPECT_NE(problem({{"RANK", "4"}, {"WORLD_SIZE", "4"}}).find("ranks count from 0"), std::string::npos);
  EXPECT_NE(problem({{"RANK", "x"}, {"WORLD_SIZE", "4"}}).find("RANK is \"x\""), std::string::npos);
  EXPECT_NE(problem({{"RANK", "0"}, {"WORLD_SIZE", "4"}, {"LOCAL_WORLD_SIZE", "2"}}).find("MASTER_ADDR"),
            std::string::npos);
  EXPECT_NE(problem({{"RANK", "0"}, {"WORLD_SIZE", "6"}, {"LOCAL_WORLD_SIZE", "4"}, {"MASTER_ADDR", "a"}})
                .find("do not make up"),
            std::string::npos);
  EXPECT_TRUE(speaks_for_all(environment({{"RANK", "0"}, {"WORLD_SIZE", "4"}})));
  EXPECT_FALSE(speaks_for_all(environment({{"RANK", "1"}, {"WORLD_SIZE", "4"}})));
  EXPECT_TRUE(speaks_for_all(environment({{"RANK", "4"}, {"WORLD_SIZE", "4"}})));  // no other knows of it
  EXPECT_TRUE(speaks_for_all(environment({{"RANK", "x"}, {"WORLD_SIZE", "4"}})));
  EXPECT_TRUE(speaks_for_all(environment({})));
}

TEST(Launch, FindsTheFirstHost) {
  EXPECT_EQ(first_host("node[07-09,12],gpu3"), "node07");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("gpu[3,5]-ib"), "gpu3-ib");
  EXPECT_EQ(first_host("one"), "one");
}

}  // namespace
}  // namespace sinew
