// Ranks of a test as threads of one process that meet at a HashStore.
#pragma once

#include <ATen/Parallel.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "comm/endpoint.hpp"

namespace sinew::test {

// Runs `body(endpoint)` as rank 0 .. size-1 and rethrows the first rank's error. With `gpus` each has one.
inline void run_ranks(int size, const std::function<void(const std::shared_ptr<Endpoint>&)>& body,
                      int ranks_per_node = 0, std::int64_t timeout = 20, bool gpus = false) {
  at::set_num_threads(1);
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        at::set_num_threads(1);
        EndpointOptions options;
        options.rank = rank;
        options.size = size;
        options.ranks_per_node = ranks_per_node;
        options.timeout = timeout;
        if (gpus) options.device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(rank));
        body(connect(store, options));
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace sinew::test
