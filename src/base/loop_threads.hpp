// For loops that want to know their width before they start.
#pragma once

namespace sinew {

// The threads that a parallel_for() started here would run on: 1 within one.
int loop_threads();

}  // namespace sinew
