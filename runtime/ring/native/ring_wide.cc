// Matrix product modulo 2^128, as an XLA FFI call: z[b, m, n] = sum_k x[b, m, k] * y[b, k, n], of elements
// whose low and high 64 bits are arrays of their own. Transposed operands as in ring_matmul.cc.
//
// A tile works on elements in pieces: two of 64 bits, or, where the processor multiplies 52 bits and adds in
// one instruction (AVX-512 IFMA), three of 52, whose sums over kBlockDepth products fit 64 bits.

#include "ring_work.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

typedef unsigned __int128 Wide;

constexpr int64_t kBlockRows = 128, kBlockColumns = 128, kBlockDepth = 128;

struct Limbs {
  Matrix<const uint64_t> low, high;

  Limbs block(int64_t row, int64_t column, int64_t height, int64_t width) const {
    return {low.block(row, column, height, width), high.block(row, column, height, width)};
  }
  Limbs transposed() const { return {low.transposed(), high.transposed()}; }
};

struct TilePlain {
  static constexpr int kRows = 4, kColumns = 2, kPieces = 2;

  static void split(uint64_t low, uint64_t high, uint64_t* to, int64_t stride) {
    to[0] = low;
    to[stride] = high;
  }

  static void run(int64_t depth, const uint64_t* x, const uint64_t* y, Wide* z) {
    Wide sum[kRows][kColumns] = {};
    for (int64_t p = 0; p < depth; ++p, x += kPieces * kRows, y += kPieces * kColumns)
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j)
          sum[i][j] += (x[i] | (Wide)x[i + kRows] << 64) * (y[j] | (Wide)y[j + kColumns] << 64);
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j) z[i * kColumns + j] = sum[i][j];
  }
};

#if defined(__x86_64__)
struct TileIfma {
  static constexpr int kLanes = 8, kRows = 3, kColumns = 2 * kLanes, kPieces = 3;
  static constexpr uint64_t kMask = (uint64_t{1} << 52) - 1;

  static void split(uint64_t low, uint64_t high, uint64_t* to, int64_t stride) {
    to[0] = low & kMask;
    to[stride] = (low >> 52 | high << 12) & kMask;
    to[2 * stride] = high >> 40;
  }

  __attribute__((target("avx512f,avx512ifma"))) static void run(int64_t depth, const uint64_t* x, const uint64_t* y,
                                                                Wide* z) {
    __m512i sum[kRows][2][kPieces];  // of what counts 1, 2^52 and 2^104
    for (auto& row : sum)
      for (auto& half : row)
        for (auto& s : half) s = _mm512_setzero_si512();
    for (int64_t p = 0; p < depth; ++p, x += kPieces * kRows, y += kPieces * kColumns)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const uint64_t* from = y + half * kLanes;
        const __m512i y0 = _mm512_loadu_si512(from), y1 = _mm512_loadu_si512(from + kColumns),
                      y2 = _mm512_loadu_si512(from + 2 * kColumns);
#pragma GCC unroll 3
        for (int i = 0; i < kRows; ++i) {
          const __m512i x0 = _mm512_set1_epi64(x[i]), x1 = _mm512_set1_epi64(x[i + kRows]),
                        x2 = _mm512_set1_epi64(x[i + 2 * kRows]);
          __m512i* s = sum[i][half];
          s[0] = _mm512_madd52lo_epu64(s[0], x0, y0);
          s[1] = _mm512_madd52hi_epu64(s[1], x0, y0);
          s[2] = _mm512_madd52hi_epu64(s[2], x0, y1);
          s[1] = _mm512_madd52lo_epu64(s[1], x0, y1);
          s[2] = _mm512_madd52hi_epu64(s[2], x1, y0);
          s[1] = _mm512_madd52lo_epu64(s[1], x1, y0);
          s[2] = _mm512_madd52lo_epu64(s[2], x1, y1);
          s[2] = _mm512_madd52lo_epu64(s[2], x0, y2);
          s[2] = _mm512_madd52lo_epu64(s[2], x2, y0);
        }
      }
    for (int i = 0; i < kRows; ++i)
      for (int half = 0; half < 2; ++half) {
        uint64_t piece[kPieces][kLanes];
        for (int k = 0; k < kPieces; ++k) _mm512_storeu_si512(piece[k], sum[i][half][k]);
        for (int j = 0; j < kLanes; ++j)
          z[i * kColumns + half * kLanes + j] = piece[0][j] + ((Wide)piece[1][j] << 52) + ((Wide)piece[2][j] << 104);
      }
  }
};
#endif

// Panels of `width` columns, row after row, each row piece after piece; missing columns are zero.
template <typename Tile>
void pack(const Limbs& from, int width, uint64_t* to) {
  const auto &low = from.low, &high = from.high;
  for (int64_t j = 0; j < low.columns; j += width) {
    const int64_t present = std::min<int64_t>(width, low.columns - j);
    for (int64_t i = 0; i < low.rows; ++i, to += Tile::kPieces * width)
      for (int64_t c = 0; c < width; ++c) {
        const int64_t at = i * low.row_stride + (j + c) * low.column_stride;
        c < present ? Tile::split(low.data[at], high.data[at], to + c, width) : Tile::split(0, 0, to + c, width);
      }
  }
}

template <typename Tile>
void block_product(const Limbs& x, const Limbs& y, const Matrix<uint64_t>& low, const Matrix<uint64_t>& high) {
  const int64_t depth = x.low.columns, step = std::min(depth, kBlockDepth);
  const int64_t x_size = (low.rows + Tile::kRows) * step * Tile::kPieces;
  const int64_t y_size = (low.columns + Tile::kColumns) * step * Tile::kPieces;
  uint64_t* packed_y = scratch<uint64_t>(x_size + y_size);
  uint64_t* packed_x = packed_y + y_size;
  for (int64_t p = 0; p < depth; p += step) {
    const Limbs x_part = x.block(0, p, x.low.rows, step);
    const int64_t now = x_part.low.columns;
    pack<Tile>(x_part.transposed(), Tile::kRows, packed_x);
    pack<Tile>(y.block(p, 0, step, y.low.columns), Tile::kColumns, packed_y);
    const uint64_t* right = packed_y;
    for (int64_t j = 0; j < low.columns; j += Tile::kColumns, right += now * Tile::kColumns * Tile::kPieces) {
      const uint64_t* left = packed_x;
      for (int64_t i = 0; i < low.rows; i += Tile::kRows, left += now * Tile::kRows * Tile::kPieces) {
        Wide tile[Tile::kRows * Tile::kColumns];
        Tile::run(now, left, right, tile);
        for (int64_t r = 0; r < std::min<int64_t>(Tile::kRows, low.rows - i); ++r)
          for (int64_t c = 0; c < std::min<int64_t>(Tile::kColumns, low.columns - j); ++c) {
            const int64_t at = (i + r) * low.row_stride + (j + c) * low.column_stride;
            Wide sum = tile[r * Tile::kColumns + c];
            if (p) sum += low.data[at] | (Wide)high.data[at] << 64;
            low.data[at] = (uint64_t)sum;
            high.data[at] = (uint64_t)(sum >> 64);
          }
      }
    }
  }
}

template <typename Tile, typename Pool>
void product(Pool& pool, int64_t batch, const Limbs& x, const Limbs& y, const Matrix<uint64_t>& low,
             const Matrix<uint64_t>& high) {
  if (low.columns < Tile::kColumns && low.columns < low.rows)  // the longer side goes along the vectors
    return product<Tile>(pool, batch, y.transposed(), x.transposed(), low.transposed(), high.transposed());
  const int64_t down = ceil_div(low.rows, kBlockRows), across = ceil_div(low.columns, kBlockColumns);
  parallel(pool, batch * down * across, [=](int64_t task) {
    const int64_t b = task / (down * across);
    const int64_t i = task / across % down * kBlockRows, j = task % across * kBlockColumns;
    auto of = [b](auto matrix) {
      matrix.data += b * matrix.rows * matrix.columns;
      return matrix;
    };
    const Limbs x_b{of(x.low), of(x.high)}, y_b{of(y.low), of(y.high)};
    block_product<Tile>(x_b.block(i, 0, kBlockRows, x.low.columns), y_b.block(0, j, y.low.rows, kBlockColumns),
                        of(low).block(i, j, kBlockRows, kBlockColumns),
                        of(high).block(i, j, kBlockRows, kBlockColumns));
  });
}

bool detect() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma");
#else
  return false;
#endif
}

template <typename Pool>
void whole_product(Pool& pool, int64_t batch, int64_t m, int64_t n, int64_t k, bool x_transposed, bool y_transposed,
                   const uint64_t* x_low, const uint64_t* x_high, const uint64_t* y_low, const uint64_t* y_high,
                   uint64_t* z_low, uint64_t* z_high) {
  if (k == 0) {
    std::fill_n(z_low, batch * m * n, 0);
    std::fill_n(z_high, batch * m * n, 0);
  }
  if (batch * m * n * k == 0) return;
  auto left = [&](const uint64_t* data) {
    return Matrix<const uint64_t>{data, m, k, x_transposed ? 1 : k, x_transposed ? m : 1};
  };
  auto right = [&](const uint64_t* data) {
    return Matrix<const uint64_t>{data, k, n, y_transposed ? 1 : n, y_transposed ? k : 1};
  };
  const Limbs x{left(x_low), left(x_high)}, y{right(y_low), right(y_high)};
  const Matrix<uint64_t> low{z_low, m, n, n, 1}, high{z_high, m, n, n, 1};
#if defined(__x86_64__)
  if (spuvm_ring_level() == 2 && detect()) return product<TileIfma>(pool, batch, x, y, low, high);
#endif
  product<TilePlain>(pool, batch, x, y, low, high);
}

ffi::Error dispatch(ffi::ThreadPool pool, bool x_transposed, bool y_transposed, ffi::Buffer<ffi::U64> x_low,
                    ffi::Buffer<ffi::U64> x_high, ffi::Buffer<ffi::U64> y_low, ffi::Buffer<ffi::U64> y_high,
                    ffi::ResultBuffer<ffi::U64> z_low, ffi::ResultBuffer<ffi::U64> z_high) {
  const auto x_shape = x_low.dimensions(), z_shape = z_low->dimensions();
  if (z_shape.size() != 3 || x_shape.size() != 3 || y_low.dimensions().size() != 3)
    return ffi::Error::InvalidArgument("spuvm_ring_matmul_wide: operands of three dimensions");
  const int64_t batch = z_shape[0], m = z_shape[1], n = z_shape[2], k = x_shape[x_transposed ? 1 : 2];
  const auto has = [](const auto& buffer, int64_t count) { return (int64_t)buffer.element_count() == count; };
  if (!has(x_low, batch * m * k) || !has(x_high, batch * m * k) || !has(y_low, batch * k * n) ||
      !has(y_high, batch * k * n) || !has(*z_high, batch * m * n))
    return ffi::Error::InvalidArgument("spuvm_ring_matmul_wide: shapes that do not fit");
  whole_product(pool, batch, m, n, k, x_transposed, y_transposed, x_low.typed_data(), x_high.typed_data(),
                y_low.typed_data(), y_high.typed_data(), z_low->typed_data(), z_high->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(spuvm_ring_matmul_wide, dispatch,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("x_transposed")
                                  .Attr<bool>("y_transposed")
                                  .Arg<ffi::Buffer<ffi::U64>>()
                                  .Arg<ffi::Buffer<ffi::U64>>()
                                  .Arg<ffi::Buffer<ffi::U64>>()
                                  .Arg<ffi::Buffer<ffi::U64>>()
                                  .Ret<ffi::Buffer<ffi::U64>>()
                                  .Ret<ffi::Buffer<ffi::U64>>());

// Whether this is faster than the sum of eleven products modulo 2^64: not where those alone run on vectors.
extern "C" int spuvm_ring_wide_pays() { return spuvm_ring_level() == 0 || (spuvm_ring_level() == 2 && detect()); }

// The same without XLA: `operands` are the limbs of x, then of y, the low ones first.
extern "C" void spuvm_ring_product_wide(int64_t batch, int64_t m, int64_t n, int64_t k, bool x_transposed,
                                        bool y_transposed, const void* const* operands, void* low, void* high,
                                        int threads) {
  EngineThreads pool{threads};
  const auto at = [&](int i) { return static_cast<const uint64_t*>(operands[i]); };
  whole_product(pool, batch, m, n, k, x_transposed, y_transposed, at(0), at(1), at(2), at(3),
                static_cast<uint64_t*>(low), static_cast<uint64_t*>(high));
}
