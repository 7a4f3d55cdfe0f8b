// Decoding takes no memory from the system once it is warm.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "engine/random_models.hpp"
#include "engine/sampling.hpp"
#include "engine/session.hpp"

namespace {
thread_local std::size_t allocations = 0;

void* counted(std::size_t size) {
  ++allocations;
  if (void* const p = std::malloc(size > 0 ? size : 1)) return p;
  throw std::bad_alloc();
}
}  // namespace

// Not inlined, or the compiler warns of free() on what it sees to come from new.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size > 0 ? size : 1);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return ::operator new(size, std::nothrow);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace sinew::engine {
namespace {

TEST(Decoding, AllocatesNothing) {
  for (const char* family : {"llama", "qwen3_moe", "deepseek_v3"}) {
    const test::TempDir dir;
    test::write_random_model(dir / "hf", test::random_config(family));
    Session session(load_model(dir / "hf"), {.kv = KvType::f32, .cache_tokens = 256});
    Sequence one = session.make_sequence(), two = session.make_sequence();
    Sampler sampler({.temperature = 1, .top_p = 0.9, .repetition_penalty = 1.1, .seed = 3});
    for (int i = 0; i < 64; ++i) sampler.accept(1);
    const TokenId first = 5;
    const auto step = [&] {
      const TokenId next = sampler.sample(session.forward(one, {&first, 1}));
      const Input inputs[] = {{&one, {&next, 1}}, {&two, {&next, 1}}};
      const auto sink = [](std::size_t, index_t, std::span<const float>) {};
      session.forward(inputs, std::cref(sink));
    };
    for (int i = 0; i < 40; ++i) step();
    const std::size_t before = allocations;
    for (int i = 0; i < 10; ++i) step();
    EXPECT_EQ(allocations, before) << family;
  }
}

}  // namespace
}  // namespace sinew::engine
