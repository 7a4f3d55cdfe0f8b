// Memory of a tensor that comes and goes while all of its views stay.
#pragma once

#include <ATen/ATen.h>

namespace sinew {

inline c10::StorageImpl* storage_impl(const at::Tensor& x) { return x.storage().unsafeGetStorageImpl(); }

inline bool has_memory(const at::Tensor& x) { return x.numel() == 0 || storage_impl(x)->data() != nullptr; }

// `x` owns its storage, all of it. The new memory holds anything.
inline void give_memory(const at::Tensor& x) {
  if (has_memory(x)) return;
  const auto fresh = at::empty(x.sizes(), x.options().requires_grad(false));
  storage_impl(x)->set_data_ptr(storage_impl(fresh)->set_data_ptr(at::DataPtr(nullptr, x.device())));
}

inline void take_memory(const at::Tensor& x) {
  if (x.numel() == 0) return;
  storage_impl(x)->set_data_ptr(at::DataPtr(nullptr, x.device()));
}

}  // namespace sinew
