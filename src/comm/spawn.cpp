#include "comm/spawn.hpp"

#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "base/threads.hpp"
#include "comm/rendezvous.hpp"

extern char** environ;  // NOLINT: POSIX

namespace sinew {
namespace {

constexpr const char* kSpawned = "SINEW_SPAWNED";

std::vector<std::string> environment_of(int rank, int ranks, int port) {
  std::vector<std::string> out;
  const std::vector<std::string> own{"RANK=",
                                     "WORLD_SIZE=",
                                     "LOCAL_RANK=",
                                     "LOCAL_WORLD_SIZE=",
                                     "MASTER_ADDR=",
                                     "MASTER_PORT=",
                                     "TORCHELASTIC_USE_AGENT_STORE=",
                                     "SINEW_SPAWNED="};
  bool threads_set = false;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    threads_set = threads_set || text.starts_with("SINEW_THREADS=");
    if (std::none_of(own.begin(), own.end(), [&](const auto& name) { return text.starts_with(name); }))
      out.push_back(text);
  }
  const auto add = [&](const char* name, const std::string& value) {
    out.push_back(std::string(name) + "=" + value);
  };
  add("RANK", std::to_string(rank));
  add("LOCAL_RANK", std::to_string(rank));
  add("WORLD_SIZE", std::to_string(ranks));
  add("LOCAL_WORLD_SIZE", std::to_string(ranks));
  add("MASTER_ADDR", "127.0.0.1");
  add("MASTER_PORT", std::to_string(port));
  add("TORCHELASTIC_USE_AGENT_STORE", "True");
  add(kSpawned, "1");
  if (!threads_set) add("SINEW_THREADS", std::to_string(std::max(1, default_threads() / ranks)));
  return out;
}

pid_t start(const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
  std::vector<char*> argv, envp;
  for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  for (const auto& e : environment) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own: what the terminal sends reaches the parent alone, which passes it on once.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0], nullptr, &attributes, argv.data(), envp.data());
  posix_spawnattr_destroy(&attributes);
  if (error != 0) throw Error(fmt::format("cannot start {}", arguments[0]));
  return pid;
}

}  // namespace

int spawn_ranks(const std::vector<std::string>& arguments, int ranks) {
  using Clock = std::chrono::steady_clock;
  const StoreServer server;
  catch_stop_signals();
  struct Rank {
    int number;
    pid_t pid;
  };
  std::vector<Rank> running;
  for (int rank = 0; rank < ranks; ++rank)
    running.push_back({rank, start(arguments, environment_of(rank, ranks, server.port()))});
  int code = 0, passed_on = 0;
  auto deadline = Clock::time_point::max();
  bool told = false;
  const auto tell = [&](int signal) {
    for (const Rank& rank : running) ::kill(rank.pid, signal);
  };
  while (!running.empty()) {
    for (auto rank = running.begin(); rank != running.end();) {
      int status = 0;
      if (::waitpid(rank->pid, &status, WNOHANG) <= 0) {
        ++rank;
        continue;
      }
      if (WIFSIGNALED(status) && !told)
        log::warn("rank {} was ended by signal {} ({})", rank->number, WTERMSIG(status),
                  ::strsignal(WTERMSIG(status)));
      rank = running.erase(rank);
      const int own = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      if (own == 0 || code != 0) continue;
      code = own;
      deadline = Clock::now() + std::chrono::seconds(10);
    }
    if (const int signal = stop_requested(); signal != 0 && passed_on == 0) {
      passed_on = signal;
      tell(signal);
    }
    if (Clock::now() > deadline) {
      tell(told ? SIGKILL : SIGTERM);
      told = true;
      deadline = Clock::now() + std::chrono::seconds(5);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return code;
}

void follow_parent() {
  if (std::getenv(kSpawned) == nullptr) return;
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
}

}  // namespace sinew
