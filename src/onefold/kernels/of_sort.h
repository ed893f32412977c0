// Sorting without recursion or a library: a heap of n indices reached through H(i), ordered by BEFORE(p, q), which says
// that index p comes before index q (a strict order of all indices, so the result does not depend on the algorithm).
#pragma once

// H(0 .. n-1) is a heap below `at`, whose root comes last; moves H(at) down to its place.
#define OF_SIFT(H, n, at, BEFORE)                                                                      \
  do {                                                                                                 \
    ix at_ = (at);                                                                                     \
    const ix held_ = (ix)H(at_);                                                                       \
    for (;;) {                                                                                         \
      ix child_ = 2 * at_ + 1;                                                                         \
      if (child_ >= (n)) break;                                                                        \
      if (child_ + 1 < (n) && BEFORE(H(child_), H(child_ + 1))) child_++;                              \
      if (!BEFORE(held_, H(child_))) break;                                                            \
      H(at_) = H(child_);                                                                              \
      at_ = child_;                                                                                    \
    }                                                                                                  \
    H(at_) = held_;                                                                                    \
  } while (0)

#define OF_HEAP(H, n, BEFORE)                                                                          \
  for (ix root_ = (n) / 2 - 1; root_ >= 0; root_--) OF_SIFT(H, n, root_, BEFORE)

// A heap becomes a list from first to last.
#define OF_UNHEAP(H, n, BEFORE)                                                                        \
  for (ix end_ = (n)-1; end_ > 0; end_--) {                                                            \
    const ix last_ = (ix)H(end_);                                                                      \
    H(end_) = H(0);                                                                                    \
    H(0) = last_;                                                                                      \
    OF_SIFT(H, end_, 0, BEFORE);                                                                       \
  }
