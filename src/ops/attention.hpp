// Causal softmax attention over grouped heads (Vaswani et al. 2017; Ainslie et al. 2023).
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// q [B, Hq, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv] -> [B, Hq, T, Dv]; Hq is a multiple of Hkv and
// query head h reads key head h / (Hq / Hkv). The queries are the last T of the S positions: query t sees
// keys 0 .. S-T+t. `documents` [B, S] (or undefined): a query sees only keys of its own document.
// softmax(scale * q k^T) is computed in fp32 for half types, block by block of queries, so no S x S matrix
// is made when autograd does not need it.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                     const at::Tensor& documents = {});

}  // namespace sinew
