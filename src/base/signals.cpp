#include "base/signals.hpp"

#include <unistd.h>

#include <csignal>

namespace sinew {
namespace {

volatile std::sig_atomic_t stop_signal = 0;

void on_signal(int number) {
  if (stop_signal != 0 && number == SIGINT) _exit(128 + number);
  stop_signal = number;
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is then an error of the write, like a full disk
}

int stop_requested() { return stop_signal; }
void clear_stop_request() { stop_signal = 0; }

}  // namespace sinew
