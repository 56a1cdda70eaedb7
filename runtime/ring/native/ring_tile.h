// One register tile of the matrix product. Included once per instruction set, because vector types are
// lowered before inlining: TILE_TARGET has to be on the function itself. No include guard, on purpose.
//
// Adds sum_p x[p, i] * y[p, j] to an accumulator of TILE_ROWS x (2 vectors) and writes it to `z`.

template <typename T>
struct TILE_NAME {
  typedef T Vector __attribute__((vector_size(TILE_BYTES), aligned(sizeof(T)), may_alias));
  static constexpr int kLanes = TILE_BYTES / sizeof(T);
  static constexpr int kRows = TILE_ROWS;
  static constexpr int kColumns = 2 * kLanes;

  TILE_TARGET static void run(int64_t depth, const T* x, const T* y, T* z, int64_t stride, bool add) {
    Vector sum[kRows][2];
    for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = Vector{};
    for (int64_t p = 0; p < depth; ++p) {
      const Vector y0 = *(const Vector*)(y + p * kColumns);
      const Vector y1 = *(const Vector*)(y + p * kColumns + kLanes);
      for (int i = 0; i < kRows; ++i) {
        const T value = x[p * kRows + i];
        sum[i][0] += y0 * value;
        sum[i][1] += y1 * value;
      }
    }
    for (int i = 0; i < kRows; ++i) {
      Vector* row = (Vector*)(z + i * stride);
      row[0] = add ? row[0] + sum[i][0] : sum[i][0];
      row[1] = add ? row[1] + sum[i][1] : sum[i][1];
    }
  }
};

#undef TILE_NAME
#undef TILE_TARGET
#undef TILE_BYTES
#undef TILE_ROWS
