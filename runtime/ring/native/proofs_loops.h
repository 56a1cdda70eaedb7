// The loops of `proofs.cc`: included once for each level, within a namespace, with TARGET what its functions may use.
// Vectors of 64 bytes are cut to what the target has when a function is read, so that each level has its own. No
// include guard, on purpose.

template <typename T>
struct Wide {
  typedef T V __attribute__((vector_size(64)));
  static constexpr int lanes = 64 / sizeof(T), vectors = kDegree / lanes;
};

// Coefficient by coefficient all ones where the bit of a weight is set.
template <typename T>
TARGET inline void spread(T* mask, uint64_t weight) {
  for (int t = 0; t < kDegree; ++t) mask[t] = static_cast<T>(0) - static_cast<T>((weight >> t) & 1);
}

// Coefficients of 1, X, ..., X^95 -> an element of the ring.
template <typename T>
TARGET inline void reduced(T* out, T* wide) {
  T high[kDegree];
  std::memcpy(high, wide + kDegree, sizeof high);
  for (int i = kDegree; i < kDegree + 8; ++i) wide[i] = 0;
  for (int shift : kLow)
    for (int i = 0; i < kDegree; ++i) wide[i + shift] -= high[i];
  for (int i = 0; i < 5; ++i)
    for (int shift : kLow) wide[i + shift] -= wide[kDegree + i];
  std::memcpy(out, wide, sizeof high);
}

// out[l][m] = sum over w of weights[w] (x0[l][w] (y0 + y1)[m][w] + x1[l][w] y0[m][w]); and a last row likewise, of
// the elements a0, a1 [w] in the place of what is weighed of x0, x1.
template <typename T>
TARGET inline void crossed(T* out, const T* x0, const T* x1, const T* y0, const T* y1, const uint64_t* weights, const T* a0,
                    const T* a1, uint64_t rows, uint64_t n) {
  using V = typename Wide<T>::V;
  constexpr int lanes = Wide<T>::lanes, vectors = Wide<T>::vectors, most = kRows / lanes;
  constexpr uint64_t groups = kBlock / kGroup;
  const uint64_t wide = (rows + lanes - 1) / lanes;
  const Aligned<V> of_rows(rows * wide * kDegree), of_last(rows * vectors);
  V *const sums = of_rows.at, *const last = of_last.at;
  V both[kBlock][most], one[kBlock][most], table[groups][1 << kGroup];
  uint16_t places[groups][kDegree];
  for (uint64_t at = 0; at < n; at += kBlock) {
    const uint64_t count = n - at < kBlock ? n - at : kBlock;
    std::memset(both, 0, sizeof both);
    std::memset(one, 0, sizeof one);
    for (uint64_t m = 0; m < rows; ++m)
      for (uint64_t j = 0; j < count; ++j) {
        const T first = y0[m * n + at + j];
        reinterpret_cast<T*>(one[j])[m] = first;
        reinterpret_cast<T*>(both[j])[m] = first + y1[m * n + at + j];
      }
    for (uint64_t g = 0; g < groups; ++g) {
      uint64_t w[kGroup];
      for (uint64_t j = 0; j < kGroup; ++j) w[j] = g * kGroup + j < count ? weights[at + g * kGroup + j] : 0;
      for (int t = 0; t < kDegree; ++t)
        places[g][t] = static_cast<uint16_t>(((w[0] >> t) & 1) | ((w[1] >> t) & 1) << 1 | ((w[2] >> t) & 1) << 2 |
                                             ((w[3] >> t) & 1) << 3);
    }
    for (uint64_t l = 0; l < rows; ++l) {
      T left[kBlock] = {}, right[kBlock] = {};
      std::memcpy(left, x0 + l * n + at, count * sizeof(T));
      std::memcpy(right, x1 + l * n + at, count * sizeof(T));
      for (uint64_t v = 0; v < wide; ++v) {
        for (uint64_t g = 0; g < groups; ++g) {
          V* t = table[g];
          t[0] = V{};
          for (uint64_t j = 0; j < kGroup; ++j) {
            const uint64_t k = g * kGroup + j;
            const V product = both[k][v] * left[k] + one[k][v] * right[k];
            for (int i = 0; i < 1 << j; ++i) t[(1 << j) + i] = t[i] + product;
          }
        }
        V* to = sums + (l * wide + v) * kDegree;
        for (int first = 0; first < kDegree; first += kPass) {
          V r[kPass];
          for (int i = 0; i < kPass; ++i) r[i] = to[first + i];
          for (uint64_t g = 0; g < groups; ++g)
#pragma GCC unroll 16
            for (int i = 0; i < kPass; ++i) r[i] += table[g][places[g][first + i]];
          for (int i = 0; i < kPass; ++i) to[first + i] = r[i];
        }
      }
    }
    for (uint64_t m = 0; m < rows; ++m) {
      V r[vectors];
      for (int i = 0; i < vectors; ++i) r[i] = last[m * vectors + i];
      for (uint64_t j = 0; j < count; ++j) {
        const T b = reinterpret_cast<T*>(both[j])[m], o = reinterpret_cast<T*>(one[j])[m];
        V p[vectors], q[vectors];
        std::memcpy(p, a0 + (at + j) * kDegree, sizeof p);
        std::memcpy(q, a1 + (at + j) * kDegree, sizeof q);
        for (int i = 0; i < vectors; ++i) r[i] += p[i] * b + q[i] * o;
      }
      for (int i = 0; i < vectors; ++i) last[m * vectors + i] = r[i];
    }
  }
  for (uint64_t l = 0; l < rows; ++l)
    for (uint64_t m = 0; m < rows; ++m)
      for (int t = 0; t < kDegree; ++t)
        out[(l * rows + m) * kDegree + t] = sums[(l * wide + m / lanes) * kDegree + t][m % lanes];
  std::memcpy(out + rows * rows * kDegree, last, rows * kDegree * sizeof(T));
}

// out[l] = sum over w of weights[w] z[l][w].
template <typename T>
TARGET inline void weighed(T* out, const T* z, const uint64_t* weights, uint64_t rows, uint64_t n) {
  std::memset(out, 0, rows * kDegree * sizeof(T));
  T mask[kBlock][kDegree];
  for (uint64_t at = 0; at < n; at += kBlock) {
    const uint64_t count = n - at < kBlock ? n - at : kBlock;
    for (uint64_t j = 0; j < count; ++j) spread(mask[j], weights[at + j]);
    for (uint64_t l = 0; l < rows; ++l) {
      T sum[kDegree];
      std::memcpy(sum, out + l * kDegree, sizeof sum);
      for (uint64_t j = 0; j < count; ++j)
        for (int t = 0; t < kDegree; ++t) sum[t] += z[l * n + at + j] & mask[j][t];
      std::memcpy(out + l * kDegree, sum, sizeof sum);
    }
  }
}

// out[w] = sum over l of weights[l] v[l][w], where v[l][w] is number l over + w along.
template <typename T>
TARGET inline void folded(T* out, const T* v, const uint64_t* weights, uint64_t rows, uint64_t n, uint64_t over,
                   uint64_t along) {
  std::vector<T> mask(rows * kDegree);
  for (uint64_t l = 0; l < rows; ++l) spread(mask.data() + l * kDegree, weights[l]);
  for (uint64_t w = 0; w < n; ++w) {
    T sum[kDegree] = {};
    for (uint64_t l = 0; l < rows; ++l) {
      const T x = v[l * over + w * along];
      for (int t = 0; t < kDegree; ++t) sum[t] += x & mask[l * kDegree + t];
    }
    std::memcpy(out + w * kDegree, sum, sizeof sum);
  }
}

// out[w] = weights[w] v[w] - a[w].
template <typename T>
TARGET inline void masked(T* out, const T* v, const T* a, const uint64_t* weights, uint64_t n) {
  for (uint64_t w = 0; w < n; ++w) {
    T wide[2 * kDegree] = {};
    for (uint64_t bits = weights[w]; bits; bits &= bits - 1) {
      T* to = wide + __builtin_ctzll(bits);
      for (int i = 0; i < kDegree; ++i) to[i] += v[w * kDegree + i];
    }
    T element[kDegree];
    reduced(element, wide);
    for (int i = 0; i < kDegree; ++i) out[w * kDegree + i] = element[i] - a[w * kDegree + i];
  }
}

// The sum of x[w] y[w].
template <typename T>
TARGET inline void inner(T* out, const T* x, const T* y, uint64_t n) {
  using V = typename Wide<T>::V;
  constexpr int vectors = Wide<T>::vectors, some = 4;
  alignas(64) V table[kDegree * vectors] = {};
  for (uint64_t at = 0; at < n; at += kBlock) {
    const uint64_t end = n - at < kBlock ? n : at + kBlock;
    for (int first = 0; first < kDegree; first += some) {
      V r[some][vectors];
      for (int i = 0; i < some; ++i)
        for (int k = 0; k < vectors; ++k) r[i][k] = table[(first + i) * vectors + k];
      for (uint64_t w = at; w < end; ++w) {
        V row[vectors];
        std::memcpy(row, y + w * kDegree, sizeof row);
        for (int i = 0; i < some; ++i)
          for (int k = 0; k < vectors; ++k) r[i][k] += row[k] * x[w * kDegree + first + i];
      }
      for (int i = 0; i < some; ++i)
        for (int k = 0; k < vectors; ++k) table[(first + i) * vectors + k] = r[i][k];
    }
  }
  T wide[2 * kDegree] = {};
  const T* flat = reinterpret_cast<const T*>(table);
  for (int i = 0; i < kDegree; ++i)
    for (int k = 0; k < kDegree; ++k) wide[i + k] += flat[i * kDegree + k];
  reduced(out, wide);
}

typedef uint64_t V64 __attribute__((vector_size(64)));
typedef uint64_t U64 __attribute__((vector_size(64), aligned(8)));

constexpr V64 kLanes[8] = {
#define LANES(k)                                                                           \
  {1ull << (8 * k), 2ull << (8 * k),  4ull << (8 * k),  8ull << (8 * k),                   \
   16ull << (8 * k), 32ull << (8 * k), 64ull << (8 * k), 128ull << (8 * k)}
    LANES(0), LANES(1), LANES(2), LANES(3), LANES(4), LANES(5), LANES(6), LANES(7)
#undef LANES
};

// sums[m] ^= of the elements a0, a1 [w], 64 a word, those whose bits are set in both[m][w], and in one[m][w].
TARGET inline void chosen(uint64_t* sums, const uint64_t* a0, const uint64_t* a1, const uint64_t (*both)[kBlock],
                          const uint64_t (*one)[kBlock], uint64_t rows, uint64_t count) {
  for (uint64_t m = 0; m < rows; ++m) {
    V64 r[8] = {};
    for (uint64_t j = 0; j < count; ++j) {
      const U64 *p = reinterpret_cast<const U64*>(a0 + j * 64), *q = reinterpret_cast<const U64*>(a1 + j * 64);
      for (int k = 0; k < 8; ++k) {
        r[k] ^= (kLanes[k] & both[m][j]) != 0 ? p[k] : V64{};
        r[k] ^= (kLanes[k] & one[m][j]) != 0 ? q[k] : V64{};
      }
    }
    V64 all = {};
    for (int k = 0; k < 8; ++k) all ^= r[k];
    for (int i = 0; i < 8; ++i) sums[m] ^= all[i];
  }
}

// out[w][b] = the exclusive or of the weights[l] where bit b of v[l][w] is set.
TARGET inline void bits_folded(uint64_t* out, const uint64_t* v, const uint64_t* weights, uint64_t rows, uint64_t n) {
  for (uint64_t w = 0; w < n; ++w) {
    V64 r[8] = {};
    for (uint64_t l = 0; l < rows; ++l) {
      const V64 weight = V64{} + weights[l];
      for (int k = 0; k < 8; ++k) r[k] ^= (kLanes[k] & v[l * n + w]) != 0 ? weight : V64{};
    }
    for (int k = 0; k < 8; ++k) reinterpret_cast<U64*>(out + w * 64)[k] = r[k];
  }
}
