#include "ops/attention.hpp"

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

// Queries of one block: long sequences skip the keys after the block and hold less at a time.
constexpr std::int64_t kBlock = 512;

// [T, S]: 0 where query `first`+t may see key s, else -infinity.
at::Tensor causal_bias(std::int64_t first, std::int64_t queries, std::int64_t keys,
                       const at::TensorOptions& options) {
  return at::full({queries, keys}, -std::numeric_limits<double>::infinity(), options).triu_(first + 1);
}

struct Shape {
  std::int64_t rows, kv_heads, group;
};

// q [B, Hkv, G, t, D] at positions first..first+t of keys k [B*Hkv, s, D], v [B*Hkv, s, Dv].
at::Tensor attend_block(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                        std::int64_t first, const at::Tensor& documents, const Shape& shape) {
  const auto queries = q.size(3), keys = k.size(1);
  const auto flat_q = q.reshape({shape.rows * shape.kv_heads, shape.group * queries, q.size(4)});
  auto bias = causal_bias(first, queries, keys, q.options());
  at::Tensor scores;  // [B*Hkv, G*t, s]
  if (!documents.defined()) {
    if (shape.group > 1) bias = bias.repeat({shape.group, 1});
    scores = at::baddbmm(bias.unsqueeze(0), flat_q, k.transpose(1, 2), 1, scale);
  } else {
    const auto own =
        documents.narrow(1, first, queries).unsqueeze(2) == documents.narrow(1, 0, keys).unsqueeze(1);
    const auto mask =
        at::where(own, bias, at::full({}, -std::numeric_limits<double>::infinity(), q.options()));
    scores = (at::bmm(flat_q, k.transpose(1, 2)) * scale)
                 .view({shape.rows, shape.kv_heads, shape.group, queries, keys})
                 .add(mask.view({shape.rows, 1, 1, queries, keys}))
                 .view({shape.rows * shape.kv_heads, shape.group * queries, keys});
  }
  const auto weights = at::softmax(scores, -1, wide_type(q.scalar_type())).to(q.scalar_type());
  return at::bmm(weights, v).view({shape.rows, shape.kv_heads, shape.group, queries, v.size(2)});
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                     const at::Tensor& documents) {
  const auto queries = q.size(2), keys = k.size(2);
  const Shape shape{q.size(0), k.size(1), q.size(1) / k.size(1)};
  ensure(shape.group * shape.kv_heads == q.size(1) && keys >= queries,
         "attention of {} queries on {} keys, {} on {} heads", queries, keys, q.size(1), k.size(1));
  const auto grouped = q.unflatten(1, {shape.kv_heads, shape.group});
  const auto flat_k = k.reshape({shape.rows * shape.kv_heads, keys, k.size(3)});
  const auto flat_v = v.reshape({shape.rows * shape.kv_heads, keys, v.size(3)});
  std::vector<at::Tensor> blocks;
  for (std::int64_t begin = 0; begin < queries; begin += kBlock) {
    const auto count = std::min(kBlock, queries - begin), first = keys - queries + begin;
    blocks.push_back(attend_block(grouped.narrow(3, begin, count), flat_k.narrow(1, 0, first + count),
                                  flat_v.narrow(1, 0, first + count), scale, first, documents, shape));
  }
  const auto out = blocks.size() == 1 ? blocks[0] : at::cat(blocks, 3);
  return out.reshape({shape.rows, q.size(1), queries, v.size(3)});
}

}  // namespace sinew
