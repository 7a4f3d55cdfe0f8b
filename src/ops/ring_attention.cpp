#include "ops/ring_attention.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr std::int64_t kBlock = 512;  // queries whose scores are made at a time

// One of the two pieces of the sequence that a member holds: n/2 tokens from `first` of what it holds, which
// are piece `number` of the row.
struct Piece {
  std::int64_t number, first;
};
std::array<Piece, 2> pieces_of(int rank, int size, std::int64_t held) {
  return {Piece{rank, 0}, Piece{2 * size - 1 - rank, held / 2}};
}

// Everything in the wide type, one matrix a key head: q [B*Hkv, G, n, D], k [B*Hkv, n, D], v [B*Hkv, n, Dv].
Tensor by_key_head(const Tensor& x, std::int64_t kv_heads) {
  const auto wide = widen(x);                            // [B, n, H, D]
  const auto heads = wide.unflatten(2, {kv_heads, -1});  // [B, n, Hkv, G, D]
  return heads.permute({0, 2, 3, 1, 4}).flatten(0, 1).contiguous();
}
Tensor from_key_heads(const Tensor& x, std::int64_t rows) {
  return x.unflatten(0, {rows, -1}).permute({0, 3, 1, 2, 4}).flatten(2, 3).contiguous();
}

// What a piece of queries and a piece of keys make of each other.
struct Pair {
  Piece query, key;
  std::int64_t length;                    // of both
  Tensor query_documents, key_documents;  // [B, length] or undefined
  double scale;

  bool visible() const { return key.number <= query.number; }
  // The scores of queries [begin, begin + count) of the piece, q [BH, G, count, D], k [BH, length, D].
  Tensor scores(const Tensor& q, const Tensor& k, std::int64_t begin) const {
    const auto count = q.size(2);
    auto s = at::matmul(q, k.transpose(1, 2).unsqueeze(1)).mul_(scale);  // [BH, G, count, length]
    if (key.number == query.number) s.add_(at::full({count, length}, kNever, s.options()).triu_(begin + 1));
    if (query_documents.defined()) {
      const auto other = query_documents.narrow(1, begin, count).unsqueeze(2) != key_documents.unsqueeze(1);
      const auto rows = other.size(0);
      s.view({rows, -1, s.size(1), count, length})
          .masked_fill_(other.view({rows, 1, 1, count, length}), kNever);
    }
    return s;
  }
};

// Keys and values on their way: what came, and what is on the wire while one works.
class Ring {
 public:
  Ring(Group& group, Tensor payload) : group_(group), now_(std::move(payload)) {}
  const Tensor& now() const { return now_; }
  // Sends what is here on and begins to receive the next.
  void begin_turn(int tag) {
    const int size = group_.size();
    next_ = at::empty_like(now_);
    sending_ = group_.send_async(now_, (group_.rank() + 1) % size, tag);
    receiving_ = group_.receive_async(next_, (group_.rank() + size - 1) % size, tag);
  }
  void end_turn() {
    receiving_->wait();
    sending_->wait();
    now_ = std::move(next_);
  }

 private:
  Group& group_;
  Tensor now_, next_;
  WorkPtr sending_, receiving_;
};

constexpr int kKeysTag = 1, kGradientsTag = 2;

struct Held : torch::CustomClassHolder {
  explicit Held(GroupPtr g) : group(std::move(g)) {}
  GroupPtr group;
};

// The parts of one call that forward and backward share.
struct Turn {
  Group& group;
  std::int64_t rows, held, kv_heads;
  double scale;
  Tensor documents;

  // Calls body(pair, query piece, key piece) for each pair of pieces that see each other, the keys being
  // those of member `owner`.
  template <class Body>
  void for_pairs(int owner, const Body& body) const {
    const int size = group.size();
    const auto half = held / 2;
    const auto documents_of = [&](const Piece& piece) {
      return documents.defined() ? documents.narrow(1, piece.number * half, half) : Tensor();
    };
    for (const auto& query : pieces_of(group.rank(), size, held)) {
      for (const auto& key : pieces_of(owner, size, held)) {
        const Pair pair{query, key, half, documents_of(query), documents_of(key), scale};
        if (pair.visible()) body(pair);
      }
    }
  }
};

struct RingAttention : torch::autograd::Function<RingAttention> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                        const Tensor& documents, bool masked, const c10::intrusive_ptr<Held>& holder) {
    const OpTimer timer(OpClass::attention, false);
    Group& group = *holder->group;
    const Turn turn{group, q.size(0), q.size(1), k.size(2), scale, masked ? documents : Tensor()};
    const auto queries = by_key_head(q, turn.kv_heads);  // [BH, G, n, D]
    const auto width = k.size(3);
    Ring ring(group, at::cat({k, v}, -1).contiguous());  // [B, n, Hkv, D + Dv]
    const auto sizes = queries.sizes();
    auto out = at::zeros({sizes[0], sizes[1], sizes[2], v.size(3)}, queries.options());
    auto lse = at::full({sizes[0], sizes[1], sizes[2], 1}, kNever, queries.options());
    for (int step = 0; step < group.size(); ++step) {
      const bool more = step + 1 < group.size();
      if (more) ring.begin_turn(kKeysTag);
      const auto both = by_key_head(ring.now(), turn.kv_heads).squeeze(1);  // [BH, n, D + Dv]
      turn.for_pairs((group.rank() + group.size() - step) % group.size(), [&](const Pair& pair) {
        const auto keys = both.narrow(1, pair.key.first, pair.length);
        for (std::int64_t begin = 0; begin < pair.length; begin += kBlock) {
          const auto count = std::min(kBlock, pair.length - begin), first = pair.query.first + begin;
          attend(pair.scores(queries.narrow(2, first, count), keys.narrow(2, 0, width), begin),
                 keys.narrow(2, width, v.size(3)), out.narrow(2, first, count), lse.narrow(2, first, count));
        }
      });
      if (more) ring.end_turn();
    }
    const auto result = from_key_heads(out, turn.rows).to(q.scalar_type());
    ctx->save_for_backward({q, k, v, documents, result, lse});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["masked"] = masked;
    ctx->saved_data["group"] = c10::IValue::make_capsule(holder);
    return result;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::attention, true);
    const auto saved = ctx->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2], &documents = saved[3], &result = saved[4];
    const auto& lse = saved[5];
    Group& group = *c10::static_intrusive_pointer_cast<Held>(ctx->saved_data["group"].toCapsule())->group;
    const Turn turn{group,
                    q.size(0),
                    q.size(1),
                    k.size(2),
                    ctx->saved_data["scale"].toDouble(),
                    ctx->saved_data["masked"].toBool() ? documents : Tensor()};
    const auto queries = by_key_head(q, turn.kv_heads), d_out = by_key_head(grads[0], turn.kv_heads);
    const auto delta = (d_out * by_key_head(result, turn.kv_heads)).sum(-1, true);  // [BH, G, n, 1]
    const auto width = k.size(3), value = v.size(3);
    auto d_queries = at::zeros_like(queries);
    // Gradients travel with the keys they belong to and come home after a whole turn.
    Ring ring(group, at::cat({k, v}, -1).contiguous());
    Ring gradients(group, at::zeros({queries.size(0), turn.held, width + value}, queries.options()));
    for (int step = 0; step < group.size(); ++step) {
      const bool more = step + 1 < group.size();
      if (more) ring.begin_turn(kKeysTag);
      const auto both = by_key_head(ring.now(), turn.kv_heads).squeeze(1);
      const auto own = at::zeros_like(gradients.now());
      turn.for_pairs((group.rank() + group.size() - step) % group.size(), [&](const Pair& pair) {
        const auto keys = both.narrow(1, pair.key.first, pair.length);
        const auto d_keys = own.narrow(1, pair.key.first, pair.length);
        for (std::int64_t begin = 0; begin < pair.length; begin += kBlock) {
          const auto count = std::min(kBlock, pair.length - begin), first = pair.query.first + begin;
          const auto q_block = queries.narrow(2, first, count), d_block = d_out.narrow(2, first, count);
          const auto k_block = keys.narrow(2, 0, width), v_block = keys.narrow(2, width, value);
          const auto shares = pair.scores(q_block, k_block, begin).sub_(lse.narrow(2, first, count)).exp_();
          auto d_scores = at::matmul(d_block, v_block.transpose(1, 2).unsqueeze(1));
          d_scores.sub_(delta.narrow(2, first, count)).mul_(shares).mul_(turn.scale);
          d_queries.narrow(2, first, count).add_(at::matmul(d_scores, k_block.unsqueeze(1)));
          d_keys.narrow(2, 0, width).add_(over_group(d_scores, q_block));
          d_keys.narrow(2, width, value).add_(over_group(shares, d_block));
        }
      });
      if (step > 0) gradients.end_turn();
      gradients.now().add_(own);
      gradients.begin_turn(kGradientsTag);
      if (more) ring.end_turn();
    }
    gradients.end_turn();
    const auto home = from_key_heads(gradients.now().unsqueeze(1), turn.rows);  // [B, n, Hkv, D + Dv]
    return {from_key_heads(d_queries, turn.rows).to(q.scalar_type()),
            home.narrow(3, 0, width).to(k.scalar_type()),
            home.narrow(3, width, value).to(v.scalar_type()),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }

 private:
  // Adds keys to what queries have seen: out and lse are those of all keys so far.
  static void attend(const Tensor& scores, const Tensor& values, const Tensor& out, const Tensor& lse) {
    const auto here = scores.logsumexp(-1, true);  // -infinity where no key is seen
    const auto joined = at::logaddexp(lse, here);
    const auto safe = joined.masked_fill(joined == kNever, 0);
    const auto part = at::matmul((scores - safe).exp_(), values.unsqueeze(1));
    out.mul_((lse - safe).exp()).add_(part);
    lse.copy_(joined);
  }
  // a [BH, G, t, n]^T b [BH, G, t, D], summed over the query heads of a key head -> [BH, n, D]
  static Tensor over_group(const Tensor& a, const Tensor& b) {
    return at::bmm(a.flatten(1, 2).transpose(1, 2), b.flatten(1, 2));
  }
};

}  // namespace

std::vector<std::int64_t> ring_positions(std::int64_t tokens, std::int64_t size, std::int64_t rank) {
  ensure(size == 1 || tokens % (2 * size) == 0, "{} tokens in {} pieces", tokens, 2 * size);
  std::vector<std::int64_t> positions;
  if (size == 1) {
    for (std::int64_t p = 0; p < tokens; ++p) positions.push_back(p);
    return positions;
  }
  const auto piece = tokens / (2 * size);
  for (const auto number : {rank, 2 * size - 1 - rank})
    for (std::int64_t i = 0; i < piece; ++i) positions.push_back(number * piece + i);
  return positions;
}

Tensor ring_attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                      const Tensor& documents, const GroupPtr& group) {
  ensure(size_of(group) > 1 && q.size(1) % 2 == 0, "a ring of {} with {} tokens each", size_of(group),
         q.size(1));
  const bool masked = documents.defined();
  return RingAttention::apply(q, k, v, scale, masked ? documents : at::empty({0}, q.options()), masked,
                              c10::make_intrusive<Held>(group));
}

}  // namespace sinew
