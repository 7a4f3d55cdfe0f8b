#include "engine/attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/index.hpp"
#include "base/team.hpp"
#include "kernels/vector.hpp"
#include "kernels/widen.hpp"
#include "kernels/workspace.hpp"
#include "quant/quantize_rows.hpp"

namespace sinew::engine {
namespace {

constexpr index_t kKeys = 128;       // of a block
constexpr index_t kGroupRows = 512;  // query rows that share the packing of a block of keys
constexpr index_t kFewRows = 128;    // up to this many, keys are split among tasks ...
constexpr index_t kSplit = 512;      // ... in pieces of this many, whatever the number of threads
constexpr float kNone = -std::numeric_limits<float>::infinity();

template <class T>
constexpr BlockFormat kNative = std::is_same_v<T, bf16> ? BlockFormat::bf16 : BlockFormat::f32;

// Rows of a page as T, [kPage, ld]; `scratch` holds kPage * n of them.
template <class T>
const T* page_rows(const VectorKernels<T>& vector, KvType type, const KvPool::Rows& rows, index_t n,
                   float* wide, T* scratch, index_t& ld) {
  const BlockFormat format = kv_format(type);
  if (format == kNative<T>) {
    ld = static_cast<index_t>(rows.row / sizeof(T));
    return reinterpret_cast<const T*>(rows.data);
  }
  ld = n;
  const index_t used = static_cast<index_t>(block_info(format).elements);
  const index_t whole = (n + used - 1) / used * used;  // a value is the first part of a latent
  for (index_t r = 0; r < kPage; ++r) {
    widen(format, rows.data + size(r) * rows.row, size(whole), wide);
    vector.store(wide, n, 1, n, scratch + r * n, n, 1.0F, false);
  }
  return scratch;
}

template <class T>
struct Scratch {
  float* wide;
  T* rows;
};

// Keys and values of one key head in the cache.
template <class T>
struct CachedSource {
  const VectorKernels<T>& vector;
  const Sequence& sequence;
  const AttentionShape& shape;
  index_t head;

  const T* keys(index_t first, index_t /*count*/, const Scratch<T>& s, index_t& ld) const {
    const KvPool& pool = sequence.pool();
    const auto rows = pool.keys(sequence.page_table()[first / kPage], shape.layer, head);
    return page_rows(vector, pool.type(), rows, shape.key, s.wide, s.rows, ld);
  }
  const T* values(index_t first, index_t /*count*/, const Scratch<T>& s, index_t& ld) const {
    const KvPool& pool = sequence.pool();
    const auto rows = pool.values(sequence.page_table()[first / kPage], shape.layer, head);
    return page_rows(vector, pool.type(), rows, shape.value, s.wide, s.rows, ld);
  }
};

// Keys and values of one head that were brought out of the latent space.
template <class T>
struct ExpandedSource {
  const VectorKernels<T>& vector;
  const AttentionShape& shape;
  const ExpandedKeys& expanded;
  index_t head;

  index_t nope() const { return shape.key - expanded.rope; }
  index_t width() const { return nope() + shape.value; }
  const float* row(index_t token) const {
    return expanded.keys + (token * expanded.heads + head - expanded.first_head) * width();
  }
  const T* keys(index_t first, index_t count, const Scratch<T>& s, index_t& ld) const {
    ld = shape.key;
    std::memset(static_cast<void*>(s.rows), 0, size(kPage * ld) * sizeof(T));
    const index_t step = expanded.heads * width();
    vector.store(row(first), step, count, nope(), s.rows, ld, 1.0F, false);
    vector.store(expanded.latents + first * expanded.latent_ld + expanded.latent_ld - expanded.rope,
                 expanded.latent_ld, count, expanded.rope, s.rows + nope(), ld, 1.0F, false);
    return s.rows;
  }
  const T* values(index_t first, index_t count, const Scratch<T>& s, index_t& ld) const {
    ld = shape.value;
    std::memset(static_cast<void*>(s.rows), 0, size(kPage * ld) * sizeof(T));
    vector.store(row(first) + nope(), expanded.heads * width(), count, shape.value, s.rows, ld, 1.0F, false);
    return s.rows;
  }
};

// Query rows first_row .. of one key head against keys [begin, end). Row r is query head `head * group + r %
// group` of token r / group of the run.
struct Task {
  const QueryRun* run;
  index_t head, group, first_row, rows, begin, end;
  float *top, *sum, *out;  // [rows], [rows], [rows, value]

  index_t token(index_t r) const { return (first_row + r) / group; }
  index_t query_head(index_t r) const { return head * group + (first_row + r) % group; }
  index_t visible(index_t r) const { return run->past + token(r) + 1; }
};

template <class T>
class Worker {
 public:
  Worker(const AttentionShape& shape, Isa isa)
      : shape_(shape),
        gemm_(gemm_kernels<T>(isa)),
        vector_(vector_kernels<T>(isa)),
        narrow_(vector_kernels<float>(isa)) {}

  const VectorKernels<T>& vector() const { return vector_; }

  template <class Source>
  void run(const Task& task, const Source& source, const float* q) const {
    Workspace::Frame frame(thread_workspace());
    const Buffers b = take(task, q, frame);
    std::fill_n(task.top, task.rows, kNone);
    std::fill_n(task.sum, task.rows, 0.0F);
    gemm_.begin();
    for (index_t first = task.begin; first < task.end; first += kKeys) {
      const index_t count = std::min(kKeys, task.end - first);
      pack_values(source, first, count, b);
      pack_keys(source, first, count, b);
      for (index_t r = 0; r < task.rows; r += kTile) {
        if (task.visible(std::min(task.rows, r + kTile) - 1) <= first) continue;
        scores(task, r, count, b);
        block(task, r, first, count, b);
      }
    }
    gemm_.end();
  }

 private:
  struct Buffers {
    index_t key_k, value_panels;
    T *q, *keys, *values, *weights;
    float *scores, *part;
    Scratch<T> scratch;
  };

  Buffers take(const Task& task, const float* q, Workspace::Frame& frame) const {
    Buffers b{};
    b.key_k = padded_k<T>(shape_.key);
    b.value_panels = (shape_.value + kTile - 1) / kTile;
    const index_t rows = round_up(task.rows, 16);
    b.q = frame.take<T>(size(rows * b.key_k));
    b.keys = frame.take<T>(size(kKeys * b.key_k));
    b.values = frame.take<T>(size(kKeys * b.value_panels * kTile));
    b.weights = frame.take<T>(size(kTile * kKeys));
    b.scores = frame.take<float>(size(kTile * kKeys));
    b.part = frame.take<float>(size(kTile * b.value_panels * kTile));
    const index_t widest = std::max(shape_.key, shape_.value);
    b.scratch = {frame.take<float>(size(round_up(widest, 32))), frame.take<T>(size(kPage * widest))};
    if (b.key_k != shape_.key) std::memset(static_cast<void*>(b.q), 0, size(rows * b.key_k) * sizeof(T));
    for (index_t r = 0; r < task.rows; ++r)
      vector_.store(q + ((task.run->first + task.token(r)) * shape_.heads + task.query_head(r)) * shape_.key,
                    shape_.key, 1, shape_.key, b.q + r * b.key_k, b.key_k, 1.0F, false);
    return b;
  }

  template <class Source>
  void pack_keys(const Source& source, index_t first, index_t count, const Buffers& b) const {
    for (index_t at = 0; at < count; at += kPage) {
      index_t ld = 0;
      const T* const keys = source.keys(first + at, std::min(kPage, count - at), b.scratch, ld);
      gemm_.pack_b_transposed(keys, ld, kPage, shape_.key, b.keys + at * b.key_k);
    }
  }

  template <class Source>
  void pack_values(const Source& source, index_t first, index_t count, const Buffers& b) const {
    for (index_t at = 0; at < count; at += kPage) {
      index_t ld = 0;
      const T* const values = source.values(first + at, std::min(kPage, count - at), b.scratch, ld);
      for (index_t p = 0; p < b.value_panels; ++p)
        gemm_.pack_b(values + p * kTile, ld, nullptr, kPage, std::min(kTile, shape_.value - p * kTile),
                     b.values + (p * kKeys + at) * kTile);
    }
  }

  void scores(const Task& task, index_t first_row, index_t count, const Buffers& b) const {
    const index_t rows = std::min(kTile, task.rows - first_row);
    for (index_t at = 0; at < count; at += kPage)
      gemm_.block(b.q + first_row * b.key_k, b.key_k, rows, b.keys + at * b.key_k, b.key_k, b.scores + at,
                  kKeys, false);
  }

  // The softmax of the scores of rows first_row .. and the values it weighs, joined to what came before.
  void block(const Task& task, index_t first_row, index_t first, index_t count, const Buffers& b) const {
    const index_t rows = std::min(kTile, task.rows - first_row), keys = round_up(count, kPage);
    float top[kTile], sum[kTile];
    for (index_t r = 0; r < rows; ++r) {
      const index_t end = std::clamp<index_t>(task.visible(first_row + r) - first, 0, count);
      sum[r] = vector_.softmax_row(b.scores + r * kKeys, 0, end, keys, static_cast<float>(shape_.scale),
                                   nullptr, 0, b.weights + r * kKeys, &top[r]);
    }
    const index_t ld = b.value_panels * kTile;
    for (index_t p = 0; p < b.value_panels; ++p)
      gemm_.block(b.weights, kKeys, rows, b.values + p * kKeys * kTile, keys, b.part + p * kTile, ld, false);
    for (index_t r = 0; r < rows; ++r)
      if (sum[r] != 0) merge(top[r], sum[r], b.part + r * ld, first_row + r, task);
  }

  void merge(float top, float sum, const float* part, index_t r, const Task& task) const {
    float* const out = task.out + r * shape_.value;
    const float old = task.top[r], most = std::max(old, top);
    const float keep = std::exp(old - most), gain = std::exp(top - most);
    const bool begun = task.sum[r] != 0;
    if (begun && keep != 1) narrow_.store(out, shape_.value, 1, shape_.value, out, shape_.value, keep, false);
    narrow_.store(part, shape_.value, 1, shape_.value, out, shape_.value, gain, begun);
    task.top[r] = most;
    task.sum[r] = (begun ? keep * task.sum[r] : 0.0F) + gain * sum;
  }

  const AttentionShape& shape_;
  const GemmKernels<T>& gemm_;
  const VectorKernels<T>& vector_;
  const VectorKernels<float>& narrow_;
};

// The tasks of `heads` key heads from first_head on, split by rows and keys.
struct TaskList {
  Task* tasks = nullptr;
  index_t count = 0;

  void add(const QueryRun& run, index_t first_head, index_t heads, index_t group) {
    const index_t rows = run.count * group, all = run.past + run.count;
    const index_t split = rows <= kFewRows ? kSplit : all;
    for (index_t h = first_head; h < first_head + heads; ++h)
      for (index_t r = 0; r < rows; r += kGroupRows) {
        const index_t n = std::min(kGroupRows, rows - r), end = run.past + (r + n - 1) / group + 1;
        for (index_t k = 0; k < end; k += split, ++count)
          if (tasks != nullptr)
            tasks[count] = {&run, h, group, r, n, k, std::min(end, k + split), nullptr, nullptr, nullptr};
      }
  }
};

// Adds up the pieces of keys of the same rows, divides and writes: tasks [first, last) belong together.
void finish(const AttentionShape& shape, const Task* tasks, index_t count, float* out) {
  const Task& t = tasks[0];
  for (index_t r = 0; r < t.rows; ++r) {
    float top = kNone, sum = 0;
    for (index_t i = 0; i < count; ++i) top = std::max(top, tasks[i].top[r]);
    float* const to = out + ((t.run->first + t.token(r)) * shape.heads + t.query_head(r)) * shape.value;
    for (index_t i = 0; i < count; ++i) sum += tasks[i].sum[r] * std::exp(tasks[i].top[r] - top);
    std::fill_n(to, shape.value, 0.0F);
    for (index_t i = 0; i < count; ++i) {
      if (tasks[i].sum[r] == 0) continue;  // saw no key
      const float factor = std::exp(tasks[i].top[r] - top) / sum;
      const float* const part = tasks[i].out + r * shape.value;
      for (index_t c = 0; c < shape.value; ++c) to[c] += factor * part[c];
    }
  }
}

template <class T, class MakeSource>
void run_tasks(const AttentionShape& shape, TaskList& list, const float* q, float* out,
               const Worker<T>& worker, const MakeSource& source, Workspace::Frame& frame) {
  index_t groups = 0;
  for (index_t i = 0; i < list.count; ++i) {
    Task& task = list.tasks[i];
    task.top = frame.take<float>(size(task.rows));
    task.sum = frame.take<float>(size(task.rows));
    task.out = frame.take<float>(size(task.rows * shape.value));
    if (task.begin == 0) ++groups;
  }
  index_t* const starts = frame.take<index_t>(size(groups + 1));
  for (index_t i = 0, g = 0; i < list.count; ++i)
    if (list.tasks[i].begin == 0) starts[g++] = i;
  starts[groups] = list.count;
  parallel_tasks(list.count, [&](index_t i) { worker.run(list.tasks[i], source(list.tasks[i]), q); });
  parallel_tasks(groups,
                 [&](index_t g) { finish(shape, list.tasks + starts[g], starts[g + 1] - starts[g], out); });
}

template <class T>
void cached(const AttentionShape& shape, std::span<const QueryRun> runs, const float* q, float* out) {
  Workspace::Frame frame(thread_workspace());
  TaskList list;
  const auto add_all = [&] {
    list.count = 0;
    for (const QueryRun& run : runs)
      if (!few_queries(shape, run)) list.add(run, 0, shape.kv_heads, shape.heads / shape.kv_heads);
  };
  add_all();
  list.tasks = frame.take<Task>(size(list.count));
  add_all();
  const Worker<T> worker(shape, active_isa());
  run_tasks<T>(
      shape, list, q, out, worker,
      [&](const Task& task) {
        return CachedSource<T>{worker.vector(), *task.run->sequence, shape, task.head};
      },
      frame);
}

template <class T>
void expanded(const AttentionShape& shape, const QueryRun& run, const float* q, const ExpandedKeys& keys,
              float* out) {
  Workspace::Frame frame(thread_workspace());
  TaskList list;
  list.add(run, keys.first_head, keys.heads, 1);
  list.tasks = frame.take<Task>(size(std::exchange(list.count, 0)));
  list.add(run, keys.first_head, keys.heads, 1);
  const Worker<T> worker(shape, active_isa());
  run_tasks<T>(
      shape, list, q, out, worker,
      [&](const Task& task) {
        return ExpandedSource<T>{worker.vector(), shape, keys, task.head};
      },
      frame);
}

// An f32 cache is computed with in fp32; the others in bf16 where the processor has products of it.
bool in_bf16(KvType type) { return type != KvType::f32 && active_isa() >= Isa::bf16; }

}  // namespace

void attend_cached(const AttentionShape& shape, std::span<const QueryRun> runs, const float* q, float* out) {
  attend_few(shape, runs, q, out);
  if (std::all_of(runs.begin(), runs.end(), [&](const QueryRun& run) { return few_queries(shape, run); }))
    return;
  if (in_bf16(runs[0].sequence->pool().type()))
    cached<bf16>(shape, runs, q, out);
  else
    cached<float>(shape, runs, q, out);
}

void attend_expanded(const AttentionShape& shape, const QueryRun& run, const float* q,
                     const ExpandedKeys& keys, float* out) {
  if (in_bf16(run.sequence->pool().type()))
    expanded<bf16>(shape, run, q, keys, out);
  else
    expanded<float>(shape, run, q, keys, out);
}

void read_keys(const Sequence& sequence, index_t layer, index_t head, index_t first, index_t tokens,
               float* out) {
  const KvPool& pool = sequence.pool();
  const index_t n = pool.key();
  parallel_tasks((tokens + kPage - 1) / kPage, [&](index_t piece) {
    for (index_t t = piece * kPage; t < std::min(tokens, (piece + 1) * kPage); ++t) {
      const index_t at = first + t;
      const auto rows = pool.keys(sequence.page_table()[at / kPage], layer, head);
      widen(kv_format(pool.type()), rows.data + size(at % kPage) * rows.row, size(n), out + t * n);
    }
  });
}

void write_row(KvType type, const KvPool::Rows& rows, index_t at, const float* x, index_t n) {
  std::byte* const to = rows.data + size(at) * rows.row;
  if (type == KvType::f32)
    std::memcpy(to, x, size(n) * sizeof(float));
  else if (type == KvType::bf16)
    vector_kernels<bf16>(active_isa()).store(x, n, 1, n, reinterpret_cast<bf16*>(to), n, 1.0F, false);
  else
    quantize_rows(kv_format(type), x, 1, n, nullptr, to, Rounding::plain);
}

}  // namespace sinew::engine
