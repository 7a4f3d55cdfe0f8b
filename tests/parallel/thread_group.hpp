// Ranks as threads of the test: a Group whose messages go through one mailbox.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <tuple>

#include "ops/group.hpp"

namespace sinew::test {

class Mailbox {
 public:
  using Address = std::tuple<int, int, int>;  // from, to, tag
  void put(const Address& address, const at::Tensor& x) {
    const std::lock_guard lock(mutex_);
    letters_[address].push_back(x.clone());
    arrived_.notify_all();
  }
  at::Tensor take(const Address& address) {
    std::unique_lock lock(mutex_);
    auto& queue = letters_[address];
    if (!arrived_.wait_for(lock, std::chrono::seconds(60), [&] { return broken_ || !queue.empty(); }))
      throw std::runtime_error("a message did not come");
    if (queue.empty()) throw std::runtime_error("another rank failed");
    auto x = queue.front();
    queue.pop_front();
    return x;
  }
  void break_off() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    arrived_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<Address, std::deque<at::Tensor>> letters_;
  bool broken_ = false;
};

class ThreadGroup : public Group {
 public:
  ThreadGroup(std::shared_ptr<Mailbox> mailbox, int rank, int size)
      : mailbox_(std::move(mailbox)), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  WorkPtr all_reduce_async(const at::Tensor& x, Reduction reduction) override {
    auto all = exchange(x);
    auto out = all[0].clone();
    for (std::size_t r = 1; r < all.size(); ++r)
      out = reduction == Reduction::sum ? out + all[r] : at::maximum(out, all[r]);
    x.copy_(out);
    return done();
  }
  WorkPtr all_gather_async(const at::Tensor& out, const at::Tensor& in) override {
    out.copy_(at::cat(exchange(in)));
    return done();
  }
  WorkPtr reduce_scatter_async(const at::Tensor& out, const at::Tensor& in) override {
    auto all = exchange(in);
    auto sum = all[0].clone();
    for (std::size_t r = 1; r < all.size(); ++r) sum = sum + all[r];
    out.copy_(sum.chunk(size_)[static_cast<std::size_t>(rank_)]);
    return done();
  }
  WorkPtr all_to_all_async(const at::Tensor& out, const at::Tensor& in,
                           const std::vector<std::int64_t>& out_rows,
                           const std::vector<std::int64_t>& in_rows) override {
    std::int64_t at_row = 0;
    for (int r = 0; r < size_; at_row += in_rows[static_cast<std::size_t>(r)], ++r)
      mailbox_->put({rank_, r, -1}, in.narrow(0, at_row, in_rows[static_cast<std::size_t>(r)]));
    at_row = 0;
    for (int r = 0; r < size_; at_row += out_rows[static_cast<std::size_t>(r)], ++r)
      out.narrow(0, at_row, out_rows[static_cast<std::size_t>(r)]).copy_(mailbox_->take({r, rank_, -1}));
    return done();
  }
  WorkPtr send_async(const at::Tensor& x, int to, int tag) override {
    mailbox_->put({rank_, to, tag}, x);
    return done();
  }
  WorkPtr receive_async(const at::Tensor& x, int from, int tag) override {
    return std::make_shared<Later>([=, this] { x.copy_(mailbox_->take({from, rank_, tag})); });
  }
  WorkPtr broadcast_async(const at::Tensor& x, int root) override {
    x.copy_(exchange(x)[static_cast<std::size_t>(root)]);
    return done();
  }
  void barrier() override { exchange(at::zeros({1})); }

 private:
  struct Later : Work {
    explicit Later(std::function<void()> w) : work(std::move(w)) {}
    void wait() override {
      if (work) work();
      work = {};
    }
    std::function<void()> work;
  };
  static WorkPtr done() { return std::make_shared<Later>(std::function<void()>()); }
  std::vector<at::Tensor> exchange(const at::Tensor& x) {
    for (int r = 0; r < size_; ++r) mailbox_->put({rank_, r, -1}, x);
    std::vector<at::Tensor> all;
    for (int r = 0; r < size_; ++r) all.push_back(mailbox_->take({r, rank_, -1}));
    return all;
  }

  std::shared_ptr<Mailbox> mailbox_;
  int rank_, size_;
};

// Groups among the threads of one test: all that name the same group are in it.
class ThreadWorld {
 public:
  explicit ThreadWorld(int size) : size_(size) {}
  int size() const { return size_; }
  GroupPtr group(const std::string& name, int rank, int size) {
    const std::lock_guard lock(mutex_);
    auto& mailbox = mailboxes_[name];
    if (mailbox == nullptr) mailbox = std::make_shared<Mailbox>();
    return std::make_shared<ThreadGroup>(mailbox, rank, size);
  }
  void break_off() {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, mailbox] : mailboxes_) mailbox->break_off();
  }

 private:
  int size_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Mailbox>> mailboxes_;
};

// body(world, rank) on `size` threads; the first failure is thrown here.
inline void on_world(int size, const std::function<void(ThreadWorld&, int)>& body) {
  ThreadWorld world(size);
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::exception_ptr failure;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(world, r);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        world.break_off();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

inline void on_ranks(int size, const std::function<void(GroupPtr)>& body) {
  on_world(size, [&](ThreadWorld& world, int rank) { body(world.group("all", rank, size)); });
}

}  // namespace sinew::test
